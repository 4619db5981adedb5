"""Split touching objects: seeds at the peaks of the distance map, watershed, and merging over shallow saddles.

Beucher & Lantuejoul 1979; Vincent & Soille 1991, IEEE TPAMI 13:583. What decides whether two touching cells are split:

- the distance map: distance to the mask's edge, times the `distance` that the caller gives, e.g. a network's map
  (`_smoothed_distance`);
- the seeds: peaks of that map, at least `min_seed_distance` apart (`_seeds`);
- the merging of basins over saddles that reach `merge_threshold` (`shared.instances.basins`).

Connected components of the foreground are found on the whole image. Each is then split within its own bounding box,
many of them in one call on one canvas: the result depends neither on the neighbours nor on how the mask was computed.
"""

from itertools import islice

import cv2
import numpy as np
from skimage.segmentation import watershed

from shared.instances.basins import merge_basins
from shared.instances.bin_packing import Box, batches_by_area, pack, pack_arrays
from shared.instances.distance import edge_distance
from shared.instances.label_image import fill_holes, label_runs, relabel

MAX_HOLE_PX = 64
"""px²; background enclosed in an object is filled up to this size."""
MASK_MERGE_THRESHOLD = 0.85
"""`merge_threshold` for a mask without a network's distance map (RESULTS.md, "Constants")."""
MASK_MIN_AREA_SHARE = 0.05
"""`min_area_share` for a mask without a network's distance map (RESULTS.md, "Constants")."""
DISTANCE_STEPS = 1024.0
"""Steps per px that the distance is rounded to: plateaus stay flat whatever the processor's rounding."""
_CANVAS_PX = 2**22
"""px² of bounding boxes that are split in one call."""


def split_touching(
    mask: np.ndarray,
    min_seed_distance: int = 4,
    min_area: int = 16,
    merge_threshold: float = MASK_MERGE_THRESHOLD,
    distance: np.ndarray | None = None,
    min_area_share: float = MASK_MIN_AREA_SHARE,
) -> np.ndarray:
    """Split a foreground mask (H, W) uint8 {0, 1} into objects: label image uint16, or uint32 above 65,535 objects.

    Labels 1..n ascend in reading order of each object's first pixel. Objects are connected by pixel sides.

    - min_seed_distance: smallest distance between two seeds, px.
    - min_area: objects below this area become background, px².
    - merge_threshold: two seeds are merged where the distance map between them stays above this share of the lower
      seed's; 1: never.
    - distance: (H, W) in [0, 1], may be a memory map. The distance to the mask's edge is multiplied by it, e.g. by a
      network's map, which is low at borders within the mask, or by `borders.border_contrast.border_weight`.
    - min_area_share: objects below this share of the typical object's area (`typical_area`) become background.
    """
    mask = fill_holes(mask, MAX_HOLE_PX)
    count, components = cv2.connectedComponents(mask, connectivity=4, ltype=cv2.CV_32S)
    boxes = _boxes(components, count, min_area)
    next_label = count
    for batch in batches_by_area(list(boxes.values()), _CANVAS_PX):
        chosen = dict(islice(boxes.items(), batch.start, batch.stop))
        next_label = _split(components, chosen, next_label, min_seed_distance, merge_threshold, distance)
    return relabel(components, min_area, min_area_share)


def _boxes(components: np.ndarray, count: int, min_area: int) -> dict[int, Box]:
    """Bounding boxes, with a margin of 1 px within the image, of the components of at least `min_area` px².

    A component that fills the whole image is left out: it has no edge.
    """
    height, width = components.shape
    start, length, number = label_runs(components)
    y, x = np.divmod(start, width)
    top, bottom = np.zeros(count, np.int64), np.zeros(count, np.int64)
    top[number[::-1]], bottom[number] = y[::-1], y  # the last value written to an index remains
    left, right = np.full(count, width), np.zeros(count, np.int64)
    np.minimum.at(left, number, x)
    np.maximum.at(right, number, x + length)
    area = np.bincount(number, length, count)
    wanted = np.flatnonzero((area >= max(min_area, 1)) & (area < components.size))
    rows = np.maximum(top - 1, 0), np.minimum(bottom + 2, height)
    columns = np.maximum(left - 1, 0), np.minimum(right + 1, width)
    boxes = zip(*(side[wanted].tolist() for side in (*rows, *columns)), strict=True)
    return {name: (slice(y0, y1), slice(x0, x1)) for name, (y0, y1, x0, x1) in zip(wanted.tolist(), boxes, strict=True)}


def _split(
    components: np.ndarray,
    boxes: dict[int, Box],
    next_label: int,
    min_seed_distance: int,
    merge_threshold: float,
    given_distance: np.ndarray | None,
) -> int:
    """Relabel, in place, the parts of components with several seeds from `next_label` on; returns the next free label.

    The components lie on one canvas, too far apart to affect one another: one call of each step for all of them takes a
    fraction of the time of one call for each.
    """
    places, shape = pack(list(boxes.values()), min_seed_distance)
    distance, owner = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
    for (component, box), place in zip(boxes.items(), places, strict=True):
        inside = components[box] == component
        given = None if given_distance is None else given_distance[box]
        distance[place] = _smoothed_distance(inside.view(np.uint8), given)
        np.multiply(inside, component, out=owner[place], dtype=np.int32)
    np.rint(distance * DISTANCE_STEPS, out=distance)
    seeds, several = _seeds(distance, owner, min_seed_distance)
    if not several:
        return next_label
    chosen = {component: place for component, place in zip(boxes, places, strict=True) if component in several}
    places, (distance, seeds, owner) = pack_arrays([distance, seeds, owner], list(chosen.values()), 1)
    basins = _flood(distance, seeds, owner > 0)
    table = merge_basins(basins, distance, merge_threshold)
    for component, place in zip(chosen, places, strict=True):
        merged = table[basins[place]]
        np.copyto(components[boxes[component]], merged + (next_label - 1), where=merged > 0)
    return next_label + int(table.max())


def _smoothed_distance(inside: np.ndarray, given: np.ndarray | None) -> np.ndarray:
    """Smoothed distance of a component's pixels (h, w) uint8 {0, 1} to its edge in px: (h, w) float32.

    The image's border is not an edge: an object cut off there keeps its full distance. given: (h, w) in [0, 1], factor
    of the distance.
    """
    distance = edge_distance(inside)
    if given is not None:
        distance *= given
    return cv2.GaussianBlur(distance, (0, 0), 1.0, borderType=cv2.BORDER_REPLICATE)


def _seeds(distance: np.ndarray, owner: np.ndarray, min_seed_distance: int) -> tuple[np.ndarray, set[int]]:
    """Find the seeds of the components with several of them, (h, w) int32 numbered from 1, and those components.

    A seed is a plateau of the distance that no pixel within `min_seed_distance` px exceeds.
    owner: (h, w), the component of each pixel, 0: none.
    """
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * min_seed_distance + 1, 2 * min_seed_distance + 1))
    peaks = ((cv2.dilate(distance, kernel) == distance) & (owner > 0)).view(np.uint8)
    count, seeds = cv2.connectedComponents(peaks, connectivity=8, ltype=cv2.CV_32S)
    where = np.flatnonzero(peaks.view(bool))
    found = seeds.ravel()[where]
    component = np.zeros(count, np.int32)
    component[found] = owner.ravel()[where]
    numbers, times = np.unique(component[1:], return_counts=True)
    several = numbers[times > 1]
    keep = np.isin(component, several)
    seeds.ravel()[where] = (np.cumsum(keep) * keep)[found]
    return seeds, set(several.tolist())


def _flood(distance: np.ndarray, seeds: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Flood from the seeds, highest distance first: basins (h, w) int32, numbered as the seeds.

    Of equal pixels the one reached first is flooded first, of the seeds' own pixels the first in reading order. So the
    result does not depend on what else is on the canvas.
    """
    where = np.flatnonzero(seeds)
    elevation = -distance.astype(np.float64)  # whole numbers
    elevation.ravel()[where] -= np.linspace(0.5, 0, len(where))
    return watershed(elevation, seeds, mask=inside)
