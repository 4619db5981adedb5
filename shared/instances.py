"""Foreground probability to instances, by watershed on the distance transform.

Beucher & Lantuejoul 1979; Vincent & Soille 1991, IEEE TPAMI 13:583. Connected pieces of the foreground are found on
the whole image; what follows looks at one piece in its own bounding box, though at many of them in one call. So the
result cannot depend on how the probability was computed or read: an image worked on in blocks gives the pixels that one
in memory gives.
"""

import math
from itertools import islice

import cv2
import numpy as np
from skimage.segmentation import watershed

from shared.sheet import Window, batches, gather, lay_out

MAX_HOLE = 64
"""px²; background enclosed in an object is filled up to this size."""
STEPS = 1024.0
"""Levels a px of the smoothed distance is rounded to: plateaus stay flat whatever the processor's rounding."""
SADDLE = 0.85
"""See `split_touching`. F1 from the true foreground, without it (1.0), at 0.9 and at 0.85: fluorescent nuclei (DSB)
.947, .965, .961; stained tissue .887, .918, .915; phase contrast (Usiigaci), cells of 60 px, .517, .764, .816."""
MIN_SHARE = 0.05
"""See `split_touching`. F1 of first proposals without it, at 0.05 and at 0.1: fluorescence .862, .859, .854; tissue
.586, .611, .612 and .746, .753, .762; cytology .492, .508, .502; of a segmentor on phase contrast .345, .387, .389."""
FAR = 2.0**20
"""px, beyond all images."""
ROWS = 512
"""Rows that are read at a time where a whole image would not fit twice."""
SHEET = 2**22
"""px² of bounding boxes that are worked on in one go."""


def foreground(probability: np.ndarray, threshold: float, rows: int = ROWS) -> np.ndarray:
    """Mask (H, W) uint8 {0, 1} of the pixels from `threshold` on; a memory map is read `rows` rows at a time."""
    mask = np.empty(probability.shape, np.uint8)
    for y in range(0, len(mask), rows):
        np.greater_equal(probability[y : y + rows], threshold, out=mask[y : y + rows].view(bool))
    return mask


def split_touching(
    mask: np.ndarray,
    min_distance: int = 4,
    min_area: int = 16,
    saddle: float = SADDLE,
    depth: np.ndarray | None = None,
    min_share: float = MIN_SHARE,
) -> np.ndarray:
    """Foreground mask (H, W) uint8 {0, 1} -> label image (H, W) uint16, or uint32 above 65,535 objects.

    Numbers 1..n ascend in reading order of each object's first pixel. Objects are connected by pixel sides.
    min_distance: px between two seeds at least. min_area: px², smaller objects become background. saddle: two seeds are
    one object where the depth between them falls to no less than this share of the shallower seed's; 1: never. depth:
    (H, W) in [0, 1] as of `instance_depth`, may be a memory map: the distance to the mask's edge is multiplied by it,
    and so falls where the segmentor sees a border within the mask. min_share: objects below this share of the area
    of the image's typical object (see `typical_area`) become background.
    """
    mask = fill_holes(mask, MAX_HOLE)
    count, pieces = cv2.connectedComponents(mask, connectivity=4, ltype=cv2.CV_32S)
    windows = _windows(pieces, count, min_area)
    free = count  # numbers from here on are not used yet
    for batch in batches(list(windows.values()), SHEET):
        chosen = dict(islice(windows.items(), batch.start, batch.stop))
        free = _split(pieces, chosen, free, min_distance, saddle, depth)
    return relabel(pieces, min_area, min_share)


def fill_holes(mask: np.ndarray, max_area: int) -> np.ndarray:
    """Fill background of at most `max_area` px² that foreground encloses; what touches the image's border is no hole.

    mask: (H, W) uint8 {0, 1}; returns a new one.
    """
    count, holes = cv2.connectedComponents(1 - mask, connectivity=8, ltype=cv2.CV_32S)
    start, length, name = _runs(holes)
    fill = np.bincount(name, length, count) <= max_area
    for border in (holes[0], holes[-1], holes[:, 0], holes[:, -1]):
        fill[border] = False
    start, length = start[fill[name]], length[fill[name]]
    filled = mask.copy()
    filled.ravel()[np.repeat(start - np.cumsum(length) + length, length) + np.arange(length.sum())] = 1
    return filled


def _runs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs of equal numbers above 0 within rows, in reading order: flat index of the first pixel, length, number."""
    found = []
    for y in range(0, len(labels), ROWS):
        strip = np.ascontiguousarray(labels[y : y + ROWS])
        change = np.ones(strip.shape, bool)
        np.not_equal(strip[:, 1:], strip[:, :-1], out=change[:, 1:])
        start = np.flatnonzero(change)
        length, name = np.diff(start, append=strip.size), strip.ravel()[start]
        inside = name > 0
        found.append((start[inside] + y * labels.shape[1], length[inside], name[inside]))
    start, length, name = (np.concatenate(column) for column in zip(*found, strict=True))
    return start, length, name


def _windows(pieces: np.ndarray, count: int, min_area: int) -> dict[int, Window]:
    """Pieces of at least `min_area` px²: their bounding boxes and one px around them, within the image.

    Without a piece that is the whole image: it has no edge.
    """
    height, width = pieces.shape
    start, length, name = _runs(pieces)
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
    min_distance: int,
    saddle: float,
    given: np.ndarray | None,
) -> int:
    """Renumber the parts of those pieces that have several seeds, from `free` on; returns the next free number.

    The pieces are laid out on one sheet, too far apart to reach one another, as one call of each step for all of them
    takes a fraction of the time of one for each.
    """
    places, shape = lay_out(list(windows.values()), min_distance)
    depth, owner = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
    for (piece, window), place in zip(windows.items(), places, strict=True):
        inside = pieces[window] == piece
        depth[place] = _depth(inside.view(np.uint8), None if given is None else given[window])
        np.multiply(inside, piece, out=owner[place], dtype=np.int32)
    np.rint(depth * STEPS, out=depth)
    seeds, several = _seeds(depth, owner, min_distance)
    if not several:
        return free
    chosen = {piece: place for piece, place in zip(windows, places, strict=True) if piece in several}
    places, (depth, seeds, owner) = gather([depth, seeds, owner], list(chosen.values()), 1)
    parts = _flood(depth, seeds, owner > 0)
    table = merge_shallow(parts, depth, saddle)
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


def edge_distance(mask: np.ndarray) -> np.ndarray:
    """Distance of a mask's pixels (H, W) uint8 {0, 1} to the nearest pixel outside it, in px: (H, W) float32.

    `FAR` where every pixel is inside. Up to 2,000 px exactly the root of a whole number: OpenCV's own is so but for the
    last bit, which depends, with one thread, on where in memory it is written: two runs of one training would differ.
    """
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    np.minimum(distance, FAR, out=distance)
    np.square(distance, out=distance)
    np.rint(distance, out=distance)
    return np.sqrt(distance, out=distance)


def _seeds(depth: np.ndarray, owner: np.ndarray, min_distance: int) -> tuple[np.ndarray, set[int]]:
    """Seeds (h, w) int32 of the pieces that have several, numbered from 1, and those pieces.

    A seed is a peak of the depth within `min_distance` px; owner: (h, w), which piece a pixel is of, 0: none.
    """
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * min_distance + 1, 2 * min_distance + 1))
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


def merge_shallow(parts: np.ndarray, depth: np.ndarray, saddle: float) -> np.ndarray:
    """Which basins of a watershed are one object: table (n + 1,) int32, old part -> new part, both from 1.

    parts: (h, w), 0 outside; depth: (h, w). From the deepest saddle down, two basins join where the saddle between
    them has at least `saddle` times the depth of the shallower one's peak: dynamics (Grimaud 1992), made relative
    so that one value serves objects of every size.
    """
    count = int(parts.max())
    inside = np.flatnonzero(parts > 0)
    peak = np.zeros(count + 1, depth.dtype)
    np.maximum.at(peak, parts.ravel()[inside], depth.ravel()[inside])
    first, second, height = _contacts(parts, depth)
    root, top = list(range(count + 1)), peak.tolist()
    for i in np.argsort(-height, kind="stable").tolist() if saddle < 1 else []:
        a, b = sorted((_find(root, int(first[i])), _find(root, int(second[i]))))
        if a != b and height[i] >= saddle * min(top[a], top[b]):
            root[b] = a
            top[a] = max(top[a], top[b])
    roots = np.array([_find(root, part) for part in range(count + 1)])
    return np.unique(roots, return_inverse=True)[1].astype(np.int32)


def _contacts(parts: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Touching pairs of parts, ascending, and the depth of the saddle between them: the deepest way across."""
    found = []
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        touch = np.nonzero((parts[here] != parts[there]) & (parts[here] > 0) & (parts[there] > 0))
        a, b = parts[here][touch], parts[there][touch]
        way = np.minimum(depth[here][touch], depth[there][touch])
        found.append((np.minimum(a, b), np.maximum(a, b), way))
    low, high, ways = (np.concatenate(column) for column in zip(*found, strict=True))
    pairs, which = np.unique(low.astype(np.int64) << 32 | high, return_inverse=True)
    height = np.zeros(len(pairs), depth.dtype)
    np.maximum.at(height, which, ways)
    return pairs >> 32, pairs & 0xFFFFFFFF, height


def _find(root: list[int], part: int) -> int:
    while root[part] != part:
        part = root[part]
    return part


def instance_depth(labels: np.ndarray) -> np.ndarray:
    """How deep a pixel lies in its object: (H, W) float32, 0 at the edge and outside, 1 at the object's deepest pixel.

    labels: (H, W) of integers >= 0, instances. The distance to the edge over its largest value in the object, so that
    small and large ones are equally plain; the image's border is no edge.
    """
    distance = edge_distance(separated(labels))
    inside = np.flatnonzero(labels)
    owner = labels.ravel()[inside]
    deepest = np.zeros(int(labels.max(initial=0)) + 1, np.float32)
    np.maximum.at(deepest, owner, distance.ravel()[inside])
    depth = np.zeros(labels.shape, np.float32)
    depth.ravel()[inside] = distance.ravel()[inside] / np.maximum(deepest[owner], 1)
    return depth


def separated(labels: np.ndarray) -> np.ndarray:
    """Foreground mask (H, W) uint8 {0, 1} of instances (H, W), with 1 px of background on either side where two touch.

    Of a label image that knows no instances (all 1) it is the image itself.
    """
    kernel = np.ones((3, 3), np.uint8)
    plane = labels.astype(np.float32)  # exact up to 2^24 instances
    low = cv2.erode(np.where(plane > 0, plane, np.inf).astype(np.float32), kernel)
    return ((plane > 0) & (low == plane) & (cv2.dilate(plane, kernel) == plane)).astype(np.uint8)


def typical_area(areas: np.ndarray) -> int:
    """The median over pixels of the area of the object they are in: specks hardly count. areas: (n,) px², n > 0."""
    return int(typical(areas, areas))


def typical(values: np.ndarray, areas: np.ndarray) -> float:
    """The median over pixels of a value of the object they are in; both (n,), areas in px², n > 0."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(areas[order])
    return float(values[order[np.searchsorted(reached, reached[-1] / 2)]])


def relabel(labels: np.ndarray, min_area: int = 0, min_share: float = 0.0) -> np.ndarray:
    """Number objects 1..n in reading order of their first pixel and drop those below `min_area` px².

    And those below min_share of the typical one's area, of those that are left.

    labels: (H, W) of integers >= 0; returns uint16, or uint32 above 65,535 objects.
    """
    strips = [slice(y, y + ROWS) for y in range(0, len(labels), ROWS)]
    top = max((int(labels[strip].max(initial=0)) for strip in strips), default=0)
    start, length, name = _runs(labels)
    area = np.bincount(name, length, top + 1)
    large = area[1:][area[1:] >= max(min_area, 1)]
    min_area = max(min_area, math.ceil(min_share * typical_area(large)) if len(large) else 0)
    first = np.full(top + 1, labels.size, np.int64)
    first[name[::-1]] = start[::-1]  # of what is written to one place the last stays
    keep = np.flatnonzero((area >= max(min_area, 1)) & (np.arange(top + 1) > 0))
    keep = keep[np.argsort(first[keep])]
    table = np.zeros(top + 1, np.uint16 if len(keep) < 2**16 else np.uint32)
    table[keep] = np.arange(1, len(keep) + 1)
    numbered = np.empty(labels.shape, table.dtype)
    for strip in strips:
        numbered[strip] = np.take(table, labels[strip])
    return numbered
