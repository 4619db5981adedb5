"""`semantic/KEY.png`: the foreground mask, 0 and 255."""

import numpy as np

from shared.exporters import PredictedImage
from shared.exporters.files_per_image import FilesPerImage, write_png


class ForegroundPng(FilesPerImage):
    """(H, W) uint8: 255 where a pixel is foreground."""

    subfolder, ending = "semantic", "png"

    def prepare(self, item: PredictedImage) -> None:
        """Write the mask."""
        write_png(self.path(item), item.mask * np.uint8(255))
