"""Tell what the values of a label image mean: numbers of objects, a foreground, classes, or nothing that can be used.

The rules, in this order; every decision but the plain cases is a remark.

1. Background is 0. Where no pixel is 0, the value that holds most of the image's border and lies on all four sides is
   the background (ilastik's 1 and 2, white behind colours); of two values it must hold three quarters of it. Where no
   value does and one covers half of the image, the label image is rejected; otherwise all is objects.
2. Smeared values are no numbers of objects: in a label image that was resized with interpolation, or was a JPEG,
   pieces of one value lie between others and nowhere fill a square of 3 x 3 px. If more than half of its pieces are
   such, it is read as foreground above half of the largest value where nearly all of its other pixels are near 0 or
   near that value, and rejected otherwise.
3. One value in several pieces, or the value 255 alone, is a foreground.
4. Classes: where at least half of the values are in several pieces of about the same size, they are read as foreground.
5. Anything else is instances.
"""

from collections.abc import Callable

import cv2
import numpy as np

from shared.artifacts.label_set import LabelKind
from shared.system.errors import ImageError

_MIN_BORDER_SHARE = 0.5
"""Share of the image's border that a value must hold to be the background."""
_MIN_BORDER_SHARE_OF_TWO = 0.75
"""The same where there are only two values, of which either may be the foreground."""
_MAX_OBJECT_SHARE = 0.5
"""Share of the image that an object must stay below where no pixel is background."""
_MIN_SMEARED_VALUES = 3
"""Values from which on they can be smeared."""
_NEAR_ZERO, _NEAR_TOP, _MIN_NEAR_SHARE = 0.125, 0.75, 0.9
"""A smeared mask: of its inner pixels above the first share of the largest value, the last share exceeds the second."""
_SMEARED = (
    "its values are no numbers of objects (resized with interpolation, or once a JPEG?); it is read as foreground, "
    "above half of the largest value"
)
"""Remark on a smeared mask."""
_MIN_PIECE_SHARE = 0.25
"""Area of a piece, as a share of the largest of its value, from which on it counts."""


def interpret(values: np.ndarray, describe: Callable[[int], str] = str) -> tuple[np.ndarray, LabelKind, list[str]]:
    """Values (H, W) of unsigned integers or bool -> labels (H, W) in the smallest unsigned dtype, kind, and remarks.

    Instances are renumbered from 1 in the order of their values. describe: a value for people. Raises ImageError for
    values that mean nothing.
    """
    from skimage.measure import label  # takes longer to load than all other readers

    remarks: list[str] = []
    labels, names = renumber(_with_background(values, describe, remarks))
    if not len(names):
        return labels, "instances", remarks
    pieces = label(labels, connectivity=2)
    if len(names) >= _MIN_SMEARED_VALUES and _are_smeared(labels, pieces):
        return _above_half(values), "foreground", [*remarks, _SMEARED]
    if len(names) == 1:
        return labels, "foreground" if names[0] == 255 or pieces.max() > 1 else "instances", remarks
    if count := _pieces_of_classes(labels, pieces, len(names)):
        remarks.append(f"{len(names)} values in {count} pieces are taken for classes, and read as foreground")
        return (labels > 0).astype(np.uint8), "foreground", remarks
    return labels, "instances", remarks


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


def _with_background(values: np.ndarray, describe: Callable[[int], str], remarks: list[str]) -> np.ndarray:
    """Values whose background is 0."""
    if (values == 0).any():
        return values
    names, counts = np.unique(values, return_counts=True)
    if len(names) == 1:
        raise ImageError(f"every pixel is {describe(names[0])}; background must be 0")
    found = _value_of_border(values, _MIN_BORDER_SHARE if len(names) > 2 else _MIN_BORDER_SHARE_OF_TWO)
    if found is not None:
        covered = 100 * float((values == found).mean())
        remarks.append(f"no pixel is 0; {describe(found)}, {covered:.0f} % of the image, is taken for the background")
        return np.where(values == found, 0, values).astype(values.dtype)
    if counts.max() >= _MAX_OBJECT_SHARE * values.size:
        listed = ", ".join(describe(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
        raise ImageError(f"no pixel is 0 (background), and which of {listed} it is cannot be told; set it to 0")
    remarks.append(f"no pixel is 0 (background): all belong to one of {len(names)} objects")
    return values


def _value_of_border(values: np.ndarray, min_share: float) -> int | None:
    """The value of at least this share of the image's border, if it lies on all four sides."""
    sides = (values[0], values[-1], values[:, 0], values[:, -1])
    names, counts = np.unique(np.concatenate(sides), return_counts=True)
    best = names[counts.argmax()]
    is_background = counts.max() >= min_share * counts.sum() and all((side == best).any() for side in sides)
    return best if is_background else None


def _are_smeared(labels: np.ndarray, pieces: np.ndarray) -> bool:
    """Whether most of the pieces lie beside others, and nowhere fill 3 x 3 px.

    labels: (H, W), renumbered; pieces: (H, W), numbers of the connected pieces of one value.
    """
    values, square = labels.astype(np.float32), np.ones((3, 3), np.uint8)
    highest = cv2.dilate(values, square)
    lowest = cv2.erode(np.where(values > 0, values, np.inf).astype(np.float32), square)
    is_inner = (cv2.erode(values, square) == highest) & (labels > 0)
    is_thin = np.ones(int(pieces.max()) + 1, bool)
    is_thin[pieces[is_inner]] = is_thin[0] = False
    beside_others = (highest > values) | (lowest < values)
    return bool(is_thin.sum() > len(is_thin) / 2 and beside_others[is_thin[pieces]].mean() > 0.5)


def _above_half(values: np.ndarray) -> np.ndarray:
    """Foreground {0, 1} of a smeared mask (H, W). Raises ImageError for smeared instances."""
    shares = values / float(values.max())
    square = np.ones((3, 3), np.uint8)
    inner = cv2.dilate(shares, square) - cv2.erode(shares, square) < _NEAR_ZERO
    of_objects = shares[inner & (shares > _NEAR_ZERO)]
    if not len(of_objects) or (of_objects >= _NEAR_TOP).mean() < _MIN_NEAR_SHARE:
        raise ImageError("its values are no numbers of objects: save label images without interpolation or JPEG")
    return (shares > 0.5).astype(np.uint8)


def _pieces_of_classes(labels: np.ndarray, pieces: np.ndarray, count: int) -> int:
    """Number of pieces where at least half of the `count` values are in several of about the same size, else 0."""
    areas = np.bincount(pieces.ravel())[1:]
    first = np.zeros(len(areas), np.int64)
    first[pieces[labels > 0] - 1] = labels[labels > 0]
    largest = np.zeros(count + 1, np.int64)
    np.maximum.at(largest, first, areas)
    counts = np.bincount(first[areas >= _MIN_PIECE_SHARE * largest[first]], minlength=count + 1)[1:]
    return int(counts.sum()) if (counts > 1).mean() >= 0.5 else 0
