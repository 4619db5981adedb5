"""Write `labels/KEY.tif`: label images that Fiji and napari open."""

from typing import Any

import tifffile

from shared.exporters.base_classes import FilesPerImage
from shared.exporters.exporter import PredictedImage


class LabelTiff(FilesPerImage):
    """TIFF (H, W) uint16 or uint32, zlib-compressed, with the pixel size where it is known."""

    subfolder, extension = "labels", "tif"

    def prepare(self, item: PredictedImage) -> None:
        """Write the label image."""
        if item.instances is None:
            return
        scale: dict[str, Any] = {}
        if item.entry.um_per_px:
            pixels_per_cm = 1e4 / item.entry.um_per_px
            scale = {"resolution": (pixels_per_cm, pixels_per_cm), "resolutionunit": "CENTIMETER"}
        tifffile.imwrite(
            self.path(item),
            item.instances.labels,
            photometric="minisblack",
            compression="zlib",
            metadata=None,
            software="",
            **scale,
        )
