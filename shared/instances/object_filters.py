"""Which of what a segmentor finds is a cell: what it is sure of somewhere, and what is as deep as the other cells.

Where an image holds nothing, a network that adapts to what it sees (group norm) finds specks in the noise. Their
probability is just above the threshold, and their depth is low everywhere, as they have no middle.
"""

import cv2
import numpy as np

from shared.instances.label_image import relabel, typical

TYPICAL_PEAK_SHARE = 0.9
"""See `hysteresis`. F1 without it, at 0.7, 0.8, 0.9 and 0.95, held out: fluorescence .851, .851, .852, .852, .853; its
images in the mixed set, seed 1, .761, .774, .788, .809, .821; tissue .701, .704, .705, .707, .709, in the mixed set
.666, .668, .668, .662, .650; cytology .541, .549, .554, .558, .573; phase contrast .557 throughout."""
MIN_DEPTH = 0.5
"""See `drop_flat_objects`. F1 on top of that at 0, 0.5, 0.6 and 0.7: fluorescence .852 throughout, tissue .706, .708, .707,
.690, cytology .556, .558, .558, .557, phase contrast .557, .568, .582, .602; but Dice of tissue .877, .876, .875, in
the mixed set .866, .861, .857."""


def hysteresis(mask: np.ndarray, probability: np.ndarray, high: float, rows: int) -> np.ndarray:
    """Those connected pieces of the mask (H, W) uint8 {0, 1} whose probability reaches `high` somewhere; a new mask.

    Hysteresis thresholding (Canny 1986, IEEE TPAMI 8:679). probability: (H, W) float32 in [0, 1], may be a memory map,
    of which `rows` rows are read at a time. Pieces are connected by pixel sides.
    """
    count, pieces = cv2.connectedComponents(mask, connectivity=4, ltype=cv2.CV_32S)
    keep = np.zeros(count, np.uint8)
    strips = [slice(y, y + rows) for y in range(0, len(mask), rows)]
    for strip in strips:
        keep[pieces[strip][probability[strip] >= high]] = 1
    keep[0] = 0
    kept = np.empty_like(mask)
    for strip in strips:
        kept[strip] = keep[pieces[strip]]
    return kept


def drop_flat_objects(labels: np.ndarray, distance: np.ndarray, share: float, rows: int = 512) -> np.ndarray:
    """Objects whose deepest pixel has at least `share` times the typical object's depth; the others become background.

    labels: (H, W) of integers >= 0, numbered from 1. depth: (H, W) float32 in [0, 1], may be a memory map. Typical: the
    median over pixels of the depth of the object they are in, so that specks hardly count.
    """
    peak, area = _peaks(labels, distance, rows)
    if not len(peak):
        return labels
    shallow = np.concatenate([[False], peak < share * typical(peak, area)])
    return relabel(np.where(shallow[labels], 0, labels)) if shallow.any() else labels


def component_peaks(mask: np.ndarray, plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of connected pieces of a mask (H, W) uint8 {0, 1}: the highest value of `plane` (H, W) and the area in px²."""
    return _peaks(cv2.connectedComponents(mask, connectivity=4, ltype=cv2.CV_32S)[1], plane, len(mask))


def _peaks(labels: np.ndarray, plane: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Of objects 1..n: the highest value of `plane`, (n,) float32, and the area in px², (n,) int64."""
    count = int(labels.max(initial=0))
    area, peak = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.float32)
    for y in range(0, len(labels), rows):
        strip = labels[y : y + rows]
        inside = strip > 0
        owner = strip[inside]
        area += np.bincount(owner, minlength=count + 1)
        np.maximum.at(peak, owner, plane[y : y + rows][inside])
    return peak[1:], area[1:]
