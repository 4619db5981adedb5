"""Write `semantic/KEY.png`: the foreground mask, 0 and 255."""

import numpy as np

from shared.exporters.base_classes import FilesPerImage, write_png
from shared.exporters.exporter import PredictedImage


class ForegroundPng(FilesPerImage):
    """PNG (H, W) uint8: 255 in the foreground."""

    subfolder, extension = "semantic", "png"

    def prepare(self, item: PredictedImage) -> None:
        """Write the mask."""
        if item.instances is not None:
            write_png(self.path(item), item.instances.mask * np.uint8(255))
