"""Label images that people drew, in whatever form, as this project has them: 0 background, 1, 2, ... instances."""

from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from shared.readers.decode.image_file import Limits, open_image
from shared.system.errors import ImageError

Kind = Literal["instances", "foreground"]
PIECES = 4
"""Pieces a value on average from which numbers look like classes rather than objects."""


def read_mask(
    path: Path, index: int, frames: int, size: tuple[int, int], limits: Limits
) -> tuple[np.ndarray, Kind, list[str]]:
    """Label image (H, W) of the smallest unsigned dtype for frame `index` of an image with `frames` frames.

    size: (height, width) that it must have. Also its kind and remarks.
    A single value in several pieces, or 255, is a foreground mask; anything else is instances, numbered anew from 1
    in the order of their values. In colour images every colour but black is an instance.
    """
    if path.suffix.lower() in (".jpg", ".jpeg", ".jpe", ".jfif"):
        raise ImageError("a JPEG changes the numbers of a label image; save it as PNG or TIFF")
    with open_image(path, Limits(1, limits.max_megapixels)) as file:
        if len(file.frames) != frames:
            raise ImageError(f"a label file of {len(file.frames)} frames for an image of {frames}")
        frame = file.frames[index]
        if (frame.height, frame.width) != size:
            raise ImageError(f"{frame.width} x {frame.height} px, but its image has {size[1]} x {size[0]}")
        values, _ = file.read(index)
    labels, names = renumber(_one_plane(values))
    pieces = cv2.connectedComponents((labels > 0).astype(np.uint8), connectivity=8)[0] - 1
    if len(names) == 1 and (names[0] == 255 or pieces > 1):
        return labels, "foreground", []
    remarks = []
    if pieces >= PIECES * max(1, len(names)):
        remarks.append(f"{len(names)} values in {pieces} pieces, taken as instances; are they classes?")
    return labels, "instances", remarks


def _one_plane(values: np.ndarray) -> np.ndarray:
    """(H, W, C) of any dtype -> (H, W) unsigned integers; colours become numbers, black 0."""
    if values.dtype.kind == "f":
        whole = np.isfinite(values).all() and np.array_equal(values, np.rint(values)) and abs(values).max() < 2**53
        if not whole:
            raise ImageError("label image with values that are no whole numbers")
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
    """(H, W) integers >= 0 -> the same regions as 0, 1, ... n of the smallest unsigned dtype, and the n old values."""
    if values.dtype in (np.bool_, np.uint8, np.uint16):
        present = np.bincount(values.ravel()).nonzero()[0]
        names = present[present > 0]
        table = np.zeros(int(present.max(initial=0)) + 1, smallest(len(names)))
        table[names] = np.arange(1, len(names) + 1)
        return table[values.astype(np.uint16)], names
    names, inverse = np.unique(values, return_inverse=True)
    first = 0 if names[0] == 0 else 1
    return (inverse.reshape(values.shape) + first).astype(smallest(len(names))), names[names > 0]


def smallest(count: int) -> type[np.unsignedinteger]:
    """Smallest unsigned dtype that holds `count` instances."""
    return np.uint8 if count < 2**8 else np.uint16 if count < 2**16 else np.uint32


def paint_objects(paths: tuple[Path, ...], size: tuple[int, int], limits: Limits) -> tuple[np.ndarray, list[str]]:
    """Label image (H, W) from one mask per object, in the order given, and a reason for each that was dropped.

    Where two overlap, the first keeps the pixels.
    """
    labels, dropped, count, overlap = np.zeros(size, np.uint32), list[str](), 0, 0
    for path in paths:
        try:
            plane, _, _ = read_mask(path, 0, 1, size, limits)
            inside = plane > 0
            free = inside & (labels == 0)
            if not free.any():
                raise ImageError("holds no pixel" if not inside.any() else "lies under other objects")
        except ImageError as error:
            dropped.append(f"{path.name}: {error}")
            continue
        overlap += int(inside.sum() - free.sum())
        count += 1
        labels[free] = count
    if overlap:
        dropped.append(f"{overlap} pixels belong to more than one object; the first one keeps them")
    return labels.astype(smallest(count)), dropped
