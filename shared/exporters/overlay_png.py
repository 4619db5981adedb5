"""`overlays/KEY.png`: the outlines of all instances on the image."""

import numpy as np

from shared.exporters import PredictedImage
from shared.exporters.files_per_image import FilesPerImage, write_png
from shared.imaging.overlays import outline, thumbnail, to_rgb8

MAX_SIDE = 4096
"""px; overlays of larger images are scaled down to it, since browsers show no larger ones."""


class OverlayPng(FilesPerImage):
    """(h, w, 3) uint8."""

    subfolder, ending = "overlays", "png"

    def prepare(self, item: PredictedImage) -> None:
        """Write the overlay."""
        write_png(self.path(item), overlay(item.image, item.labels))


def overlay(image: np.ndarray, labels: np.ndarray, max_side: int = MAX_SIDE) -> np.ndarray:
    """Outlines of label image (H, W) on image (H, W, C) as RGB uint8, in the image's size up to `max_side`."""
    small = thumbnail(image, max_side)
    small = small if small.ndim == 3 else small[..., None]
    if small.shape[:2] != labels.shape:
        rows, columns = (
            np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(np.int64)
            for new, old in zip(small.shape[:2], labels.shape, strict=True)
        )
        labels = labels[rows[:, None], columns]
    return outline(to_rgb8(small), labels)
