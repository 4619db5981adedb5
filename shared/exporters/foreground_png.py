"""Write `semantic/KEY.png`: the foreground mask, 0 and 255."""

import numpy as np

from shared.exporters.exporter import PredictedImage
from shared.exporters.files_per_image import FilesPerImage, write_png


class ForegroundPng(FilesPerImage):
    """PNG (H, W) uint8: 255 in the foreground."""

    subfolder, extension = "semantic", "png"

    def prepare(self, item: PredictedImage) -> None:
        """Write the mask."""
        write_png(self.path(item), item.mask * np.uint8(255))
