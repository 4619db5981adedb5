"""Check the size that an image file declares, before it is decoded."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from shared.system.errors import ImageError

UNCHECKED_DECODED_BYTES = 64 * 2**20
"""Decoded size up to which the compression ratio is not checked."""
MAX_COMPRESSION_RATIO = 2000
"""Decoded bytes per stored byte; larger ratios are damaged files or decompression bombs."""


@dataclass(frozen=True)
class Limits:
    """Sizes of accepted images."""

    min_size: int = 8
    """px, in both directions."""
    max_megapixels: float = 400.0
    """Megapixels of one plane; all channels together may have four times as many values."""


@dataclass(frozen=True)
class Frame:
    """One image of a file, as its header declares it."""

    height: int
    """px"""
    width: int
    """px"""
    channels: int
    nbytes: int
    """Bytes of the decoded pixels, approximately."""
    um_per_px: float | None = None
    """Pixel size in micrometres; None where the file does not state it."""
    number: int = 0
    """Number of the image in the file, from 0; planes stored in another file of a set are counted but not listed."""
    samples: Literal["values", "colours", "indexes"] = "values"
    """What a pixel holds according to the header: values, red, green and blue, or indexes of a palette of colours."""
    palette: "Palette | None" = None
    """The palette of indexes."""
    has_alpha: bool = False
    """Whether the last channel is opacity according to the header."""
    place: tuple[tuple[str, int], ...] = ()
    """Position along each axis of frames that the file names, such as T and Z, in alphabetical order."""


@dataclass(frozen=True)
class Palette:
    """What a palette of colours says about its indexes."""

    zero_is_black: bool
    """Whether the first colour is black."""
    has_void: bool
    """Whether colour 255 is that of Pascal VOC's void."""

    @classmethod
    def of(cls, colours: np.ndarray) -> "Palette | None":
        """Colours (N, 3) uint8 -> what they say; None for greys in order, whose indexes are values."""
        if (colours == colours[:, :1]).all() and (np.diff(colours[:, 0].astype(int)) >= 0).all():
            return None
        void = len(colours) == 256 and tuple(colours[255]) == (224, 224, 192)
        return cls(not colours[0].any(), void)


@dataclass(frozen=True)
class DeclaredSize:
    """Size of an image according to its header."""

    height: int
    """px"""
    width: int
    """px"""
    channels: int
    itemsize: int
    """Bytes per value."""

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded pixels."""
        return self.height * self.width * self.channels * self.itemsize

    def frame(self, um_per_px: float | None = None, number: int = 0) -> Frame:
        """Return the frame of this size."""
        return Frame(self.height, self.width, self.channels, self.nbytes, um_per_px, number)


Samples = Literal["values", "colours"] | Palette
"""What a pixel holds according to a header: values, colours, or indexes of this palette."""


def with_samples(frame: Frame, samples: Samples, has_alpha: bool) -> Frame:
    """Note in a frame what its pixels hold."""
    if isinstance(samples, Palette):
        return replace(frame, samples="indexes", palette=samples, has_alpha=has_alpha)
    return replace(frame, samples=samples, has_alpha=has_alpha)


def check_size(declared: DeclaredSize, stored: int | None, limits: Limits) -> None:
    """Raise ImageError where a declared size is out of bounds, or larger than `stored` bytes can encode."""
    height, width, channels = declared.height, declared.width, declared.channels
    if min(height, width) < limits.min_size:
        raise ImageError(f"{width} x {height} px; smaller than {limits.min_size} px (min_size)")
    megapixels = height * width / 1e6
    if megapixels > limits.max_megapixels:
        raise ImageError(
            f"{width} x {height} px are {megapixels:.0f} megapixels; max_megapixels is {limits.max_megapixels:g}"
        )
    if megapixels * channels > 4 * limits.max_megapixels:
        raise ImageError(f"{width} x {height} px x {channels} channels; more than four times max_megapixels")
    decoded = declared.nbytes
    if stored is not None and decoded > UNCHECKED_DECODED_BYTES and decoded > MAX_COMPRESSION_RATIO * stored:
        raise ImageError(f"declares {width} x {height} px, but has only {stored} bytes of image data")


def drop_alpha(image: np.ndarray, remarks: list[str]) -> np.ndarray:
    """Drop the last channel of (H, W, C + 1); append a remark where it is not constant."""
    alpha = image[..., -1]
    if alpha.min() != alpha.max():
        remarks.append("alpha channel dropped, although it is not constant")
    return image[..., :-1]
