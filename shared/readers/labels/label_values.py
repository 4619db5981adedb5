"""Tell what the values of a label image mean: numbers of objects, a foreground, classes, or nothing that can be used.

The rules, in this order; every decision but the plain cases is a remark.

1. The colour (224, 224, 192), in a palette or not, is unknown: the void of Pascal VOC. So is the value 255 beside
   values below 200 where it is thin lines that enclose most of these.
2. Background is 0. Where no pixel is 0, the value that holds most of the image's border and lies on all four sides is
   the background (ilastik's 1 and 2, white behind colours); of two values it must hold three quarters of it. Where no
   value does and one covers half of the image, the label image is rejected; otherwise all is objects.
3. Where 0 is but thin lines or a narrow margin, and another value encloses most of the others, that value is background
   as well (watersheds, whose lines are 0). In a palette whose first colour is not black, the index that holds nearly
   the whole border is the background, and 0 an object: programs that reduce colours number them at will.
4. Smeared values are no numbers of objects: in a label image that was resized with interpolation, or was a JPEG,
   pieces of one value lie between others and nowhere fill a square of 3 x 3 px. If more than half of its pieces are
   such, it is read as foreground above half of the largest difference from the background, where nearly all of its
   other pixels are near the background or near that difference, and rejected otherwise.
5. One value in several pieces, or the value 255 alone, is a foreground.
6. Classes: where at least half of the values are in several pieces of about the same size, they are read as foreground.
7. Anything else is instances.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np

from shared.artifacts.label_set import LabelKind
from shared.readers.decode.limits import Palette
from shared.readers.labels.background import Background, border_share, filled, find_background
from shared.readers.labels.numbering import renumber
from shared.system.errors import ImageError

COLOUR_BITS = 16
"""Bits of a channel in a number that stands for a colour."""
_VOID, _MAX_BESIDE_VOID = 255, 200
_VOID_COLOUR = 224 << 2 * COLOUR_BITS | 224 << COLOUR_BITS | 192
_MAX_RING_PX = 8
"""Width of rings of the value 255, px."""
_MIN_RINGED_SHARE = 0.5
"""Share of the other values' pixels that rings enclose."""
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
_MIN_BORDER_SHARE_OF_FOREGROUND = 0.9
"""Share of the image's border from which on the foreground of a mask may be its background."""


@dataclass
class Interpretation:
    """What a label image holds."""

    labels: np.ndarray
    """(H, W) in the smallest unsigned dtype; instances are renumbered from 1 in the order of their values."""
    kind: LabelKind
    remarks: list[str] = field(default_factory=list)
    conf: np.ndarray | None = None
    """(H, W) uint8, 0 where the label is unknown, else 255; None where it is known everywhere."""


def interpret(
    values: np.ndarray, describe: Callable[[int], str] = str, palette: Palette | None = None
) -> Interpretation:
    """Tell what values (H, W) mean, which are unsigned integers or bool.

    describe: a value for people; palette: of values that are its indexes. Raises ImageError for values that mean
    nothing.
    """
    remarks: list[str] = []
    unknown = _void(values, palette)
    if unknown is not None:
        remarks.append(f"{describe(int(values[unknown][0]))} is read as unknown, as Pascal VOC has it around objects")
        values = np.where(unknown, 0, values).astype(values.dtype)
    numbered_at_will = palette is not None and not palette.zero_is_black
    background = find_background(values, describe, remarks, numbered_at_will)
    found = _interpreted(values, background, remarks)
    if unknown is not None:
        found.conf = np.where(unknown, 0, 255).astype(np.uint8)
    return found


def _interpreted(values: np.ndarray, background: Background, remarks: list[str]) -> Interpretation:
    from skimage.measure import label  # takes longer to load than all other readers

    labels, names = renumber(background.values)
    if not len(names):
        return Interpretation(labels, "instances", remarks)
    pieces = label(labels, connectivity=2)
    if len(names) >= _MIN_SMEARED_VALUES and _are_smeared(labels, pieces):
        return Interpretation(_above_half(values, background.name), "foreground", [*remarks, _SMEARED])
    if len(names) == 1:
        if (share := border_share(labels)) >= _MIN_BORDER_SHARE_OF_FOREGROUND and not labels.all():
            remarks.append(
                f"the foreground holds {100 * share:.0f} % of the image's border; invert it if that is the background"
            )
        return Interpretation(labels, "foreground" if names[0] == 255 or pieces.max() > 1 else "instances", remarks)
    if count := _pieces_of_classes(labels, pieces, len(names)):
        remarks.append(f"{len(names)} values in {count} pieces are taken for classes, and read as foreground")
        return Interpretation((labels > 0).astype(np.uint8), "foreground", remarks)
    return Interpretation(labels, "instances", remarks)


def _void(values: np.ndarray, palette: Palette | None) -> np.ndarray | None:
    """Pixels (H, W) bool whose label is unknown; None where all are known."""
    if values.dtype == np.uint64:
        unknown = values == _VOID_COLOUR
        return unknown if unknown.any() and not unknown.all() else None
    unknown = values == _VOID
    others = (values > 0) & ~unknown
    if not unknown.any() or not others.any() or values[~unknown].max() >= _MAX_BESIDE_VOID:
        return None
    if palette is not None and palette.has_void:
        return unknown
    square = np.ones((_MAX_RING_PX + 1, _MAX_RING_PX + 1), np.uint8)
    is_thin = not cv2.erode(unknown.astype(np.uint8), square, borderValue=0).any()
    return unknown if is_thin and filled(unknown)[others].mean() >= _MIN_RINGED_SHARE else None


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


def _above_half(values: np.ndarray, background: int) -> np.ndarray:
    """Foreground {0, 1} of a smeared mask (H, W). Raises ImageError for smeared instances."""
    difference = _difference(values, background)
    shares = difference / difference.max()
    square = np.ones((3, 3), np.uint8)
    inner = cv2.dilate(shares, square) - cv2.erode(shares, square) < _NEAR_ZERO
    of_objects = shares[inner & (shares > _NEAR_ZERO)]
    if not len(of_objects) or (of_objects >= _NEAR_TOP).mean() < _MIN_NEAR_SHARE:
        raise ImageError("its values are no numbers of objects: save label images without interpolation or JPEG")
    return (shares > 0.5).astype(np.uint8)


def _difference(values: np.ndarray, background: int) -> np.ndarray:
    """Difference from the background, of colours the largest of the three channels: (H, W) float64."""
    if values.dtype != np.uint64:
        return np.abs(values.astype(np.float64) - background)
    mask = np.uint64(2**COLOUR_BITS - 1)
    channels = [values >> np.uint64(COLOUR_BITS * channel) & mask for channel in range(3)]
    names = [background >> COLOUR_BITS * channel & int(mask) for channel in range(3)]
    differences = [np.abs(one.astype(np.float64) - name) for one, name in zip(channels, names, strict=True)]
    return np.max(differences, axis=0)


def _pieces_of_classes(labels: np.ndarray, pieces: np.ndarray, count: int) -> int:
    """Number of pieces where at least half of the `count` values are in several of about the same size, else 0."""
    areas = np.bincount(pieces.ravel())[1:]
    first = np.zeros(len(areas), np.int64)
    first[pieces[labels > 0] - 1] = labels[labels > 0]
    largest = np.zeros(count + 1, np.int64)
    np.maximum.at(largest, first, areas)
    counts = np.bincount(first[areas >= _MIN_PIECE_SHARE * largest[first]], minlength=count + 1)[1:]
    return int(counts.sum()) if (counts > 1).mean() >= 0.5 else 0
