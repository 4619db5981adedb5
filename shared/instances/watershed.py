"""Foreground probability to instances, by watershed on the distance transform.

Beucher & Lantuejoul 1979; Vincent & Soille 1991, IEEE TPAMI 13:583. Connected pieces of the foreground are found on
the whole image; what follows looks at one piece in its own bounding box, though at many of them in one call. So the
result cannot depend on how the probability was computed or read: an image worked on in blocks gives the pixels that one
in memory gives.
"""

from itertools import islice

import cv2
import numpy as np
from skimage.segmentation import watershed

from shared.instances.basins import merge_shallow
from shared.instances.bin_packing import Window, batches, gather, lay_out
from shared.instances.distance import edge_distance
from shared.instances.label_image import fill_holes, relabel, runs_of

MAX_HOLE = 64
"""px²; background enclosed in an object is filled up to this size."""
STEPS = 1024.0
"""Levels a px of the smoothed distance is rounded to: plateaus stay flat whatever the processor's rounding."""
MERGE_THRESHOLD = 0.85
"""See `split_touching`. F1 from the true foreground, without it (1.0), at 0.9 and at 0.85: fluorescent nuclei (DSB)
.947, .965, .961; stained tissue .887, .918, .915; phase contrast (Usiigaci), cells of 60 px, .517, .764, .816."""
MIN_AREA_SHARE = 0.05
"""See `split_touching`. F1 of first proposals without it, at 0.05 and at 0.1: fluorescence .862, .859, .854; tissue
.586, .611, .612 and .746, .753, .762; cytology .492, .508, .502; of a segmentor on phase contrast .345, .387, .389."""
ROWS = 512
"""Rows that are read at a time where a whole image would not fit twice."""
SHEET = 2**22
"""px² of bounding boxes that are worked on in one go."""


def threshold(probability: np.ndarray, value: float, rows: int = ROWS) -> np.ndarray:
    """Mask (H, W) uint8 {0, 1} of the pixels from `value` on; a memory map is read `rows` rows at a time."""
    mask = np.empty(probability.shape, np.uint8)
    for y in range(0, len(mask), rows):
        np.greater_equal(probability[y : y + rows], value, out=mask[y : y + rows].view(bool))
    return mask


def split_touching(
    mask: np.ndarray,
    min_seed_distance: int = 4,
    min_area: int = 16,
    merge_threshold: float = MERGE_THRESHOLD,
    distance: np.ndarray | None = None,
    min_area_share: float = MIN_AREA_SHARE,
) -> np.ndarray:
    """Foreground mask (H, W) uint8 {0, 1} -> label image (H, W) uint16, or uint32 above 65,535 objects.

    Numbers 1..n ascend in reading order of each object's first pixel. Objects are connected by pixel sides.
    min_seed_distance: px between two seeds, at least. min_area: px²; smaller objects become background.
    merge_threshold: two seeds are merged where the distance map between them stays above this share of the lower
    seed's; 1: never. distance: (H, W) in [0, 1], see `instance_distance`, may be a memory map; the distance to the
    mask's edge is multiplied by it, so that it falls where a network sees a border within the mask. min_area_share:
    objects below this share of the area of the image's typical object (`typical_area`) become background.
    """
    mask = fill_holes(mask, MAX_HOLE)
    count, pieces = cv2.connectedComponents(mask, connectivity=4, ltype=cv2.CV_32S)
    windows = _windows(pieces, count, min_area)
    free = count  # numbers from here on are not used yet
    for batch in batches(list(windows.values()), SHEET):
        chosen = dict(islice(windows.items(), batch.start, batch.stop))
        free = _split(pieces, chosen, free, min_seed_distance, merge_threshold, distance)
    return relabel(pieces, min_area, min_area_share)


def _windows(pieces: np.ndarray, count: int, min_area: int) -> dict[int, Window]:
    """Pieces of at least `min_area` px²: their bounding boxes and one px around them, within the image.

    Without a piece that is the whole image: it has no edge.
    """
    height, width = pieces.shape
    start, length, name = runs_of(pieces)
    y, x = np.divmod(start, width)
    top, bottom = np.zeros(count, np.int64), np.zeros(count, np.int64)
    top[name[::-1]], bottom[name] = y[::-1], y  # of what is written to one place the last stays
    left, right = np.full(count, width), np.zeros(count, np.int64)
    np.minimum.at(left, name, x)
    np.maximum.at(right, name, x + length)
    area = np.bincount(name, length, count)
    wanted = np.flatnonzero((area >= max(min_area, 1)) & (area < pieces.size))
    rows = zip(np.maximum(top - 1, 0)[wanted].tolist(), np.minimum(bottom + 2, height)[wanted].tolist(), strict=True)
    columns = zip(np.maximum(left - 1, 0)[wanted].tolist(), np.minimum(right + 1, width)[wanted].tolist(), strict=True)
    both = zip(rows, columns, strict=True)
    return dict(zip(wanted.tolist(), ((slice(*row), slice(*column)) for row, column in both), strict=True))


def _split(
    pieces: np.ndarray,
    windows: dict[int, Window],
    free: int,
    min_seed_distance: int,
    merge_threshold: float,
    given: np.ndarray | None,
) -> int:
    """Renumber the parts of those pieces that have several seeds, from `free` on; returns the next free number.

    The pieces are laid out on one sheet, too far apart to reach one another, as one call of each step for all of them
    takes a fraction of the time of one for each.
    """
    places, shape = lay_out(list(windows.values()), min_seed_distance)
    depth, owner = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
    for (piece, window), place in zip(windows.items(), places, strict=True):
        inside = pieces[window] == piece
        depth[place] = _depth(inside.view(np.uint8), None if given is None else given[window])
        np.multiply(inside, piece, out=owner[place], dtype=np.int32)
    np.rint(depth * STEPS, out=depth)
    seeds, several = _seeds(depth, owner, min_seed_distance)
    if not several:
        return free
    chosen = {piece: place for piece, place in zip(windows, places, strict=True) if piece in several}
    places, (depth, seeds, owner) = gather([depth, seeds, owner], list(chosen.values()), 1)
    parts = _flood(depth, seeds, owner > 0)
    table = merge_shallow(parts, depth, merge_threshold)
    for piece, place in zip(chosen, places, strict=True):
        part = table[parts[place]]
        np.copyto(pieces[windows[piece]], part + (free - 1), where=part > 0)
    return free + int(table.max())


def _depth(inside: np.ndarray, given: np.ndarray | None) -> np.ndarray:
    """Distance of a piece's pixels (h, w) uint8 {0, 1} to its edge in px, smoothed; float32.

    The image's border is no edge of an object: a cell that is cut off there keeps its full depth. given: (h, w) in
    [0, 1], what the distance is multiplied by.
    """
    distance = edge_distance(inside)
    if given is not None:
        distance *= given
    return cv2.GaussianBlur(distance, (0, 0), 1.0, borderType=cv2.BORDER_REPLICATE)


def _seeds(depth: np.ndarray, owner: np.ndarray, min_seed_distance: int) -> tuple[np.ndarray, set[int]]:
    """Seeds (h, w) int32 of the pieces that have several, numbered from 1, and those pieces.

    A seed is a peak of the depth within `min_seed_distance` px; owner: (h, w), which piece a pixel is of, 0: none.
    """
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * min_seed_distance + 1, 2 * min_seed_distance + 1))
    peaks = ((cv2.dilate(depth, kernel) == depth) & (owner > 0)).view(np.uint8)
    count, seeds = cv2.connectedComponents(peaks, connectivity=8, ltype=cv2.CV_32S)
    where = np.flatnonzero(peaks.view(bool))
    found = seeds.ravel()[where]
    piece = np.zeros(count, np.int32)
    piece[found] = owner.ravel()[where]
    names, times = np.unique(piece[1:], return_counts=True)
    several = names[times > 1]
    keep = np.isin(piece, several)
    seeds.ravel()[where] = (np.cumsum(keep) * keep)[found]
    return seeds, set(several.tolist())


def _flood(depth: np.ndarray, seeds: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Watershed from the seeds, deepest first: (h, w) int32.

    Among equals what was reached first goes first, and among the seeds' own pixels the first in reading order: what
    else is on the sheet does not matter.
    """
    where = np.flatnonzero(seeds)
    height = -depth.astype(np.float64)  # whole numbers
    height.ravel()[where] -= np.linspace(0.5, 0, len(where))
    return watershed(height, seeds, mask=inside)
