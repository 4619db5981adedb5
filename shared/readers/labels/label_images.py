"""Read label images in their various forms: 0 is background, 1, 2, ... are instances in the result.

Palettes are read by index, never by colour. In colour images each colour is a value, black 0. Transparent pixels are
background; where the colour is the same everywhere, alpha holds the values. What values mean:
`shared.readers.labels.label_values`.
"""

from pathlib import Path

import numpy as np

from shared.readers.decode.image_file import Frame, ImageFile, Limits, open_image
from shared.readers.labels.label_values import COLOUR_BITS, Interpretation, interpret
from shared.readers.labels.numbering import smallest_dtype
from shared.system.errors import ImageError

_JPEG_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif"}
Place = tuple[tuple[str, int], ...]
"""`place` of a frame."""


def read_label_image(
    path: Path, size: tuple[int, int], limits: Limits, index: int = 0, frame_count: int = 1, place: Place = ()
) -> Interpretation:
    """Read the label image for frame `index` of an image with `frame_count` frames and (height, width) px.

    place: where that frame is along the axes that its file names; the label image of the same place is taken where the
    label file names the same axes. Raises ImageError with the reason alone.
    """
    if path.suffix.lower() in _JPEG_SUFFIXES:
        raise ImageError("JPEG compression changes the values of a label image; save it as PNG or TIFF")
    with open_image(path, Limits(1, limits.max_megapixels)) as file:
        if len(file.frames) != frame_count:
            raise ImageError(f"a label file of {len(file.frames)} frames for an image of {frame_count}")
        number = _frame_at(file, index, place)
        frame = file.frames[number]
        if (frame.height, frame.width) != size:
            raise ImageError(f"{frame.width} x {frame.height} px, but its image has {size[1]} x {size[0]}")
        pixels, remarks = file.read(number, raw=True)
    values = _to_integers(pixels, frame, remarks)
    describe = _colour_name if values.dtype == np.uint64 else lambda value: f"the value {value}"
    found = interpret(values, describe, frame.palette)
    found.remarks = [f"{path.name}: {remark}" for remark in remarks + found.remarks]
    return found


def _frame_at(file: ImageFile, index: int, place: Place) -> int:
    """Number of the frame at `place`; `index` where the files do not name the same axes."""
    places = [frame.place for frame in file.frames]
    return places.index(place) if place and place in places and len(set(places)) == len(places) else index


def _to_integers(values: np.ndarray, frame: Frame, remarks: list[str]) -> np.ndarray:
    """Convert (H, W, C) of any dtype to (H, W) unsigned integers; each colour becomes a uint64, black 0."""
    if frame.has_alpha and values.shape[2] in (2, 4):
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
    if values.shape[2] != 3 or frame.samples == "values":
        raise ImageError(f"label image with {values.shape[2]} channels; one is needed")
    packed = np.zeros(values.shape[:2], np.uint64)
    for channel in range(values.shape[2]):
        packed = packed << np.uint64(COLOUR_BITS) | values[..., channel].astype(np.uint64)
    return packed


def _without_alpha(values: np.ndarray, remarks: list[str]) -> np.ndarray:
    """Read the last channel of (H, W, C + 1) as alpha: (H, W, C), or (H, W, 1) where alpha alone holds the values."""
    colours, alpha = values[..., :-1], values[..., -1:]
    if (alpha == alpha[0, 0]).all():
        return colours
    if (colours == colours[0, 0]).all():
        remarks.append("the values are those of the alpha channel: the colour is the same everywhere")
        return alpha
    if not colours[(alpha > 0)[..., 0]].any():
        remarks.append("the values are those of the alpha channel: all that is not transparent is black")
        return alpha
    remarks.append("transparent pixels are taken for background")
    return np.where(alpha == 0, 0, colours).astype(values.dtype)


def _colour_name(value: int) -> str:
    mask = 2**COLOUR_BITS - 1
    return f"the colour ({', '.join(str(int(value) >> shift & mask) for shift in (2 * COLOUR_BITS, COLOUR_BITS, 0))})"


def merge_object_masks(
    paths: tuple[Path, ...], size: tuple[int, int], limits: Limits
) -> tuple[np.ndarray, list[str], list[str]]:
    """Merge one mask per object, in the given order, into a label image (H, W).

    The first of two overlapping objects keeps the pixels. Several values in a mask are as many objects. Also returns
    the reason for each object that is dropped, and remarks.
    """
    labels, dropped, remarks, count, overlap = np.zeros(size, np.uint32), list[str](), list[str](), 0, 0
    for path in paths:
        try:
            found = read_label_image(path, size, limits)
            objects = int(found.labels.max(initial=0)) if found.kind == "instances" else 1
            inside = found.labels > 0
            free = inside & (labels == 0)
            if not free.any():
                raise ImageError("contains no pixel" if not inside.any() else "lies under other objects")
        except ImageError as error:
            dropped.append(f"{path.name}: {error}")
            continue
        remarks += found.remarks
        if objects > 1:
            remarks.append(f"{path.name}: {objects} values, each of which is read as an object")
        overlap += int(inside.sum() - free.sum())
        labels[free] = count + (found.labels[free] if objects > 1 else 1)
        count += objects
    if overlap:
        dropped.append(f"{overlap} pixels belong to more than one object; the first one keeps them")
    return labels.astype(smallest_dtype(count)), dropped, remarks
