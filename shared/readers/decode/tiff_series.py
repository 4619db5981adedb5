"""The series of a TIFF: arrays with named axes; which of them are images, and which are thumbnails or labels."""

import math
from dataclasses import dataclass

import numpy as np
import tifffile

from shared.readers.decode.limits import Palette, Samples
from shared.system.errors import ImageError

_MAX_LAST_CHANNELS, _MIN_LAST_SIDE = 32, 32
"""Lengths of the last axis, and of the two before it, px, of an array without named axes that has its channels last."""


@dataclass(frozen=True)
class Stack:
    """One series of a file: an array with named axes, the trailing ones of which make up a page."""

    series: tifffile.TiffPageSeries
    axes: str
    shape: tuple[int, ...]
    page_axis: int
    """Position of the first axis within a page; the axes before it enumerate pages."""
    channels_last: bool = False
    """Whether channels were found behind Y and X although no axis has a name."""

    @property
    def pages_shape(self) -> tuple[int, ...]:
        """Lengths of the axes that enumerate pages."""
        return self.shape[: self.page_axis]

    @property
    def frame_axes(self) -> list[int]:
        """Positions of the axes that enumerate frames."""
        return [i for i, axis in enumerate(self.axes) if axis not in "YXCS"]

    def place(self, where: tuple[int, ...]) -> tuple[tuple[str, int], ...]:
        """Position along the named axes of frames; `where`: along all axes of frames."""
        named = zip((self.axes[i] for i in self.frame_axes), where, strict=True)
        return tuple(sorted((axis, number) for axis, number in named if axis not in "QI"))

    def size(self, axis: str) -> int:
        """Length along an axis; 1 where the axis is missing."""
        return math.prod(n for a, n in zip(self.axes, self.shape, strict=True) if a == axis)


class NotTaken(ImageError):
    """A series that is no image, or is too small or too large."""


def is_secondary(series: tifffile.TiffPageSeries) -> bool:
    """Whether a series is a thumbnail, a reduced copy, a mask of transparency, or a slide's label or overview."""
    names = {"thumbnail", "label", "macro", "overview"}
    return bool(series.keyframe.is_reduced or series.keyframe.is_mask or series.name.strip().lower() in names)


def describe(series: tifffile.TiffPageSeries) -> str:
    """Name a series for people."""
    page = series.keyframe
    kind = "a reduced copy" if page.is_reduced else f"the part {series.name!r}" if series.name else "a part"
    return f"{kind} of {page.imagewidth} x {page.imagelength} px"


def check_colours(page: tifffile.TiffPage) -> None:
    """Raise ImageError for colours other than grey, RGB and palettes. JPEG's YCbCr is decoded to RGB."""
    known = tifffile.PHOTOMETRIC
    if page.photometric == known.SEPARATED:
        raise ImageError("a CMYK TIFF; save it as RGB")
    is_jpeg = page.compression in (tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG)
    if page.photometric in (known.MINISWHITE, known.MINISBLACK, known.RGB, known.PALETTE, known.MASK):
        return
    if page.photometric == known.YCBCR and is_jpeg:
        return
    raise ImageError(f"a TIFF whose colours are {known(page.photometric).name}; save it as RGB")


def samples_of(stack: Stack) -> tuple[Samples, bool]:
    """Return what a pixel holds according to the header, or the palette, and whether its last sample is opacity."""
    page, known = stack.series.keyframe, tifffile.PHOTOMETRIC
    if page.photometric == known.PALETTE and page.colormap is not None:
        table = page.colormap >> 8 if page.colormap.max() > 255 else page.colormap
        return Palette.of(table.T.astype(np.uint8)) or "values", False
    has_alpha = bool(page.extrasamples) and page.extrasamples[-1] in (1, 2)
    is_rgb = page.photometric in (known.RGB, known.YCBCR)
    return "colours" if is_rgb else "values", stack.size("S") > 1 and (has_alpha or (is_rgb and stack.size("S") == 4))


def stack_of(series: tifffile.TiffPageSeries) -> Stack:
    """Return the array of a series, with its axes. Raises ImageError where it is no image."""
    axes, shape = series.get_axes(False), tuple(series.get_shape(False))
    size = math.prod(series.keyframe.shape)
    page_axis = next((i for i in range(len(shape) + 1) if math.prod(shape[i:]) == size), None)
    if axes.count("Y") != 1 or axes.count("X") != 1 or page_axis is None:
        raise ImageError(f"holds an array with the axes {axes} and shape {shape}, which is not an image")
    last = series.kind == "shaped" and _has_channels_last(axes, shape)
    return Stack(series, f"{axes[:-3]}YXC" if last else axes, shape, page_axis, last)


def _has_channels_last(axes: str, shape: tuple[int, ...]) -> bool:
    """Whether an array whose axes have no names is (..., Y, X, C): the last axis is by far the shortest."""
    if len(axes) < 3 or axes[-3] not in "QI" or axes[-2:] != "YX":
        return False
    height, width, channels = shape[-3:]
    return channels <= _MAX_LAST_CHANNELS and min(height, width) >= max(_MIN_LAST_SIDE, 4 * channels)
