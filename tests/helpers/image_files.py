"""Write image files, and read them back through the project's decoders."""

from pathlib import Path

import numpy as np
import tifffile

from shared.readers.decode.image_file import Limits, open_image
from shared.readers.decode.pixel_values import to_storable

DEFAULT_LIMITS = Limits()
RNG = np.random.default_rng(1)


def read_all(path: Path, limits: Limits = DEFAULT_LIMITS) -> tuple[list[np.ndarray], list[str]]:
    """Frames (H, W, C) of a file as they are stored in an ImageSet, and all remarks."""
    with open_image(path, limits) as file:
        pairs = [file.read(i) for i in range(len(file.frames))]
        for frame, (image, _) in zip(file.frames, pairs, strict=True):
            assert image.shape[:2] == (frame.height, frame.width)
    return [to_storable(image) for image, _ in pairs], [remark for _, remarks in pairs for remark in remarks]


def random(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    """Values from 0 to 249."""
    return RNG.integers(0, 250, shape).astype(dtype)


def written(folder: Path, array: np.ndarray, name: str = "a.tif", **options: object) -> Path:
    """Path of a TIFF with this array."""
    tifffile.imwrite(folder / name, array, **options)
    return folder / name


def two_objects(dtype: type = np.uint8, first: int = 3, second: int = 9) -> np.ndarray:
    """Label image (30, 40) of two rectangles with these values."""
    labels = np.zeros((30, 40), dtype)
    labels[2:10, 3:12] = second
    labels[8:20, 20:30] = first
    return labels
