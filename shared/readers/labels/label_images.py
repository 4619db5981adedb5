"""Read label images in their various forms: 0 is background, 1, 2, ... are instances in the result.

Palettes are read by index, never by colour. In colour images each colour is a value, black 0. Transparent pixels are
background; where the colour is the same everywhere, alpha holds the values. What values mean:
`shared.readers.labels.label_values`.
"""

from pathlib import Path

import numpy as np

from shared.artifacts.label_set import LabelKind
from shared.readers.decode.image_file import Limits, open_image
from shared.readers.labels.label_values import interpret, smallest_dtype
from shared.system.errors import ImageError

_JPEG_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif"}
_COLOUR_BITS = 16
"""Bits of a channel in a number that stands for a colour."""


def read_label_image(
    path: Path, size: tuple[int, int], limits: Limits, index: int = 0, frame_count: int = 1
) -> tuple[np.ndarray, LabelKind, list[str]]:
    """Read the label image (H, W) for frame `index` of an image with `frame_count` frames and (height, width) px.

    Returns the labels in the smallest unsigned dtype, their kind, and remarks. Raises ImageError with the reason alone.
    """
    pixels, remarks = _read_pixels(path, size, limits, index, frame_count)
    values = _to_integers(pixels, remarks)
    is_packed = values.dtype == np.uint64
    labels, kind, found = interpret(values, _colour_name if is_packed else lambda value: f"the value {value}")
    return labels, kind, [f"{path.name}: {remark}" for remark in remarks + found]


def _read_pixels(
    path: Path, size: tuple[int, int], limits: Limits, index: int, frame_count: int
) -> tuple[np.ndarray, list[str]]:
    """Read pixels (H, W, C) of any dtype of a file that fits its image; also return remarks."""
    if path.suffix.lower() in _JPEG_SUFFIXES:
        raise ImageError("JPEG compression changes the values of a label image; save it as PNG or TIFF")
    with open_image(path, Limits(1, limits.max_megapixels)) as file:
        if len(file.frames) != frame_count:
            raise ImageError(f"a label file of {len(file.frames)} frames for an image of {frame_count}")
        frame = file.frames[index]
        if (frame.height, frame.width) != size:
            raise ImageError(f"{frame.width} x {frame.height} px, but its image has {size[1]} x {size[0]}")
        return file.read(index, raw=True)


def _to_integers(values: np.ndarray, remarks: list[str]) -> np.ndarray:
    """Convert (H, W, C) of any dtype to (H, W) unsigned integers; each colour becomes a uint64, black 0."""
    if values.shape[2] in (2, 4):
        values = _without_alpha(values, remarks)
    if values.dtype.kind == "f":
        whole = np.isfinite(values).all() and np.array_equal(values, np.rint(values)) and abs(values).max() < 2**53
        if not whole:
            raise ImageError("label image with values that are not whole numbers")
        values = values.astype(np.int64)
    if values.dtype.kind not in "bui":
        raise ImageError(f"label image of type {values.dtype}")
    if values.dtype.kind == "i" and values.min() < 0:
        raise ImageError(f"label image with negative values (down to {values.min()})")
    if values.shape[2] == 1 or (values == values[..., :1]).all():
        return values[..., 0].astype(np.int64) if values.dtype == np.uint64 else values[..., 0]
    if values.shape[2] > 3:
        raise ImageError(f"label image with {values.shape[2]} channels; one is needed")
    packed = np.zeros(values.shape[:2], np.uint64)
    for channel in range(values.shape[2]):
        packed = packed << np.uint64(_COLOUR_BITS) | values[..., channel].astype(np.uint64)
    return packed


def _without_alpha(values: np.ndarray, remarks: list[str]) -> np.ndarray:
    """Read the last channel of (H, W, C + 1) as alpha: (H, W, C), or (H, W, 1) where alpha alone holds the values."""
    colours, alpha = values[..., :-1], values[..., -1:]
    if (alpha == alpha[0, 0]).all():
        return colours
    if (colours == colours[0, 0]).all():
        remarks.append("the values are those of the alpha channel: the colour is the same everywhere")
        return alpha
    remarks.append("transparent pixels are taken for background")
    return np.where(alpha == 0, 0, colours).astype(values.dtype)


def _colour_name(value: int) -> str:
    mask = 2**_COLOUR_BITS - 1
    return f"the colour ({', '.join(str(int(value) >> shift & mask) for shift in (2 * _COLOUR_BITS, _COLOUR_BITS, 0))})"


def merge_object_masks(
    paths: tuple[Path, ...], size: tuple[int, int], limits: Limits
) -> tuple[np.ndarray, list[str], list[str]]:
    """Merge one mask per object, in the given order, into a label image (H, W).

    The first of two overlapping objects keeps the pixels. Also returns the reason for each object that is dropped, and
    remarks.
    """
    labels, dropped, remarks, count, overlap = np.zeros(size, np.uint32), list[str](), list[str](), 0, 0
    for path in paths:
        try:
            plane, _, found = read_label_image(path, size, limits)
            inside = plane > 0
            free = inside & (labels == 0)
            if not free.any():
                raise ImageError("contains no pixel" if not inside.any() else "lies under other objects")
        except ImageError as error:
            dropped.append(f"{path.name}: {error}")
            continue
        remarks += found
        overlap += int(inside.sum() - free.sum())
        count += 1
        labels[free] = count
    if overlap:
        dropped.append(f"{overlap} pixels belong to more than one object; the first one keeps them")
    return labels.astype(smallest_dtype(count)), dropped, remarks
