"""What an image file may declare, checked before it is decoded."""

from dataclasses import dataclass

import numpy as np

from shared.system.errors import ImageError

SMALL = 64 * 2**20
"""Bytes decoded below which a poor ratio of stored to decoded bytes is of no concern."""
RATIO = 2000
"""Decoded bytes a stored byte may stand for in files that decode to more than `SMALL`."""


@dataclass(frozen=True)
class Limits:
    """Sizes outside of which an image is rejected."""

    min_size: int = 8
    """px, either direction."""
    max_megapixels: float = 400.0
    """Of one plane; all channels together may have four times as many values."""


@dataclass(frozen=True)
class Frame:
    """One image of a file, as its header declares it."""

    height: int
    """px"""
    width: int
    """px"""
    channels: int
    nbytes: int
    """Bytes of the decoded pixels, about."""
    um_per_px: float | None = None
    number: int = 0
    """Which image of the file it is, from 0. Planes that lie in another file of a set are passed over."""


def check(height: int, width: int, channels: int, itemsize: int, stored: int | None, limits: Limits) -> None:
    """Raise ImageError where a declared size is out of bounds, or more than `stored` bytes can possibly hold."""
    if min(height, width) < limits.min_size:
        raise ImageError(f"{width} x {height} px; smaller than {limits.min_size} px (min_size)")
    megapixels = height * width / 1e6
    if megapixels > limits.max_megapixels:
        raise ImageError(
            f"{width} x {height} px are {megapixels:.0f} megapixels; max_megapixels is {limits.max_megapixels:g}"
        )
    if megapixels * channels > 4 * limits.max_megapixels:
        raise ImageError(f"{width} x {height} px x {channels} channels; more than four times max_megapixels")
    decoded = height * width * channels * itemsize
    if stored is not None and decoded > SMALL and decoded > RATIO * stored:
        raise ImageError(f"declares {width} x {height} px, but has only {stored} bytes of image data")


def drop_alpha(image: np.ndarray, remarks: list[str]) -> np.ndarray:
    """(H, W, C + 1) -> (H, W, C), with a remark where the last channel was not constant."""
    alpha = image[..., -1]
    if alpha.min() != alpha.max():
        remarks.append("its alpha channel, which varies, was dropped")
    return image[..., :-1]
