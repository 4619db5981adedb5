"""Read label images in their various forms: 0 is background, 1, 2, ... are instances in the result."""

from pathlib import Path

import cv2
import numpy as np

from shared.artifacts.label_set import LabelKind
from shared.readers.decode.image_file import Limits, open_image
from shared.system.errors import ImageError

MIN_COMPONENTS_PER_VALUE = 4
"""Connected components per value from which a remark asks whether the values are classes rather than objects."""
_JPEG_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif"}


def read_label_image(
    path: Path, size: tuple[int, int], limits: Limits, index: int = 0, frame_count: int = 1
) -> tuple[np.ndarray, LabelKind, list[str]]:
    """Read the label image (H, W) for frame `index` of an image with `frame_count` frames and (height, width) px.

    Returns the labels in the smallest unsigned dtype, their kind, and remarks. One value in several components, or
    the value 255 alone, is a foreground mask; anything else is instances, renumbered from 1 in the order of their
    values. In colour images each colour except black is an instance.
    """
    values = _read_values(path, size, limits, index, frame_count)
    labels, names = renumber(_to_integers(values))
    components = cv2.connectedComponents((labels > 0).astype(np.uint8), connectivity=8)[0] - 1
    if len(names) == 1 and (names[0] == 255 or components > 1):
        return labels, "foreground", []
    remarks = []
    if components >= MIN_COMPONENTS_PER_VALUE * max(1, len(names)):
        remarks.append(f"{len(names)} values in {components} components, read as instances; are they classes?")
    return labels, "instances", remarks


def _read_values(path: Path, size: tuple[int, int], limits: Limits, index: int, frame_count: int) -> np.ndarray:
    """Read pixels (H, W, C) of any dtype of a file that fits its image."""
    if path.suffix.lower() in _JPEG_SUFFIXES:
        raise ImageError("JPEG compression changes the values of a label image; save it as PNG or TIFF")
    with open_image(path, Limits(1, limits.max_megapixels)) as file:
        if len(file.frames) != frame_count:
            raise ImageError(f"a label file of {len(file.frames)} frames for an image of {frame_count}")
        frame = file.frames[index]
        if (frame.height, frame.width) != size:
            raise ImageError(f"{frame.width} x {frame.height} px, but its image has {size[1]} x {size[0]}")
        return file.read(index)[0]


def _to_integers(values: np.ndarray) -> np.ndarray:
    """Convert (H, W, C) of any dtype to (H, W) unsigned integers; each colour becomes a number, black 0."""
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
        return values[..., 0]
    if values.shape[2] > 3:
        raise ImageError(f"label image with {values.shape[2]} channels; one is needed")
    packed = np.zeros(values.shape[:2], np.uint64)
    for channel in range(values.shape[2]):
        packed = packed << np.uint64(16) | values[..., channel].astype(np.uint64)
    return packed


def renumber(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Renumber (H, W) integers >= 0 to 0, 1, ... n in the smallest unsigned dtype; also return the n old values."""
    if values.dtype in (np.bool_, np.uint8, np.uint16):
        present = np.bincount(values.ravel()).nonzero()[0]
        names = present[present > 0]
        table = np.zeros(int(present.max(initial=0)) + 1, smallest_dtype(len(names)))
        table[names] = np.arange(1, len(names) + 1)
        return table[values.astype(np.uint16)], names
    names, inverse = np.unique(values, return_inverse=True)
    first = 0 if names[0] == 0 else 1
    return (inverse.reshape(values.shape) + first).astype(smallest_dtype(len(names))), names[names > 0]


def smallest_dtype(count: int) -> type[np.unsignedinteger]:
    """Return the smallest unsigned dtype that holds `count` instances."""
    return np.uint8 if count < 2**8 else np.uint16 if count < 2**16 else np.uint32


def merge_object_masks(paths: tuple[Path, ...], size: tuple[int, int], limits: Limits) -> tuple[np.ndarray, list[str]]:
    """Merge one mask per object, in the given order, into a label image (H, W).

    The first of two overlapping objects keeps the pixels. Also returns the reason for each object that is dropped.
    """
    labels, dropped, count, overlap = np.zeros(size, np.uint32), list[str](), 0, 0
    for path in paths:
        try:
            plane, _, _ = read_label_image(path, size, limits)
            inside = plane > 0
            free = inside & (labels == 0)
            if not free.any():
                raise ImageError("contains no pixel" if not inside.any() else "lies under other objects")
        except ImageError as error:
            dropped.append(f"{path.name}: {error}")
            continue
        overlap += int(inside.sum() - free.sum())
        count += 1
        labels[free] = count
    if overlap:
        dropped.append(f"{overlap} pixels belong to more than one object; the first one keeps them")
    return labels.astype(smallest_dtype(count)), dropped
