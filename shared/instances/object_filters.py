"""Drop objects that a network is not sure of anywhere, or that have no middle.

In an image without cells, a network that adapts to its input (group norm) finds specks in the noise. Their probability
is just above the threshold, and their distance map is low everywhere.
"""

import cv2
import numpy as np

from shared.imaging.row_strips import row_slices
from shared.instances.label_image import area_weighted_median, relabel

TYPICAL_PEAK_SHARE = 0.9
"""Calibrated high threshold, as a share of the typical object's highest probability (RESULTS.md, "Constants")."""


def hysteresis(mask: np.ndarray, probability: np.ndarray, high_threshold: float, rows: int | None = None) -> np.ndarray:
    """Keep the connected components of a mask (H, W) uint8 {0, 1} whose probability reaches `high_threshold` somewhere.

    Hysteresis thresholding (Canny 1986, IEEE TPAMI 8:679). probability: (H, W) float32 in [0, 1], may be a memory map,
    read `rows` rows at a time. Components are connected by pixel sides. Returns a new mask.
    """
    count, components = cv2.connectedComponents(mask, connectivity=4, ltype=cv2.CV_32S)
    keep = np.zeros(count, np.uint8)
    for part in row_slices(len(mask), rows):
        keep[components[part][probability[part] >= high_threshold]] = 1
    keep[0] = 0
    kept = np.empty_like(mask)
    for part in row_slices(len(mask), rows):
        kept[part] = keep[components[part]]
    return kept


def drop_flat_objects(labels: np.ndarray, distance: np.ndarray, min_share: float) -> np.ndarray:
    """Drop the objects whose highest distance is below `min_share` of the typical object's.

    labels: (H, W) of integers >= 0, numbered from 1; distance: (H, W) float32 in [0, 1], may be a memory map. Typical:
    the median over pixels of the highest distance of the object they belong to.
    """
    peak, area = _peaks(labels, distance)
    if not len(peak):
        return labels
    flat = np.concatenate([[False], peak < min_share * area_weighted_median(peak, area)])
    return relabel(np.where(flat[labels], 0, labels)) if flat.any() else labels


def component_peaks(mask: np.ndarray, plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Highest value of a plane (H, W) in each connected component of a mask (H, W) uint8 {0, 1}, and the areas in px².

    Returns (n,) float32 and (n,) int64. Components are connected by pixel sides.
    """
    return _peaks(cv2.connectedComponents(mask, connectivity=4, ltype=cv2.CV_32S)[1], plane)


def _peaks(labels: np.ndarray, plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Highest value of a plane in each of the objects 1..n, (n,) float32, and the areas in px², (n,) int64."""
    count = int(labels.max(initial=0))
    area, peak = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.float32)
    for rows in row_slices(len(labels)):
        strip = labels[rows]
        inside = strip > 0
        owner = strip[inside]
        area += np.bincount(owner, minlength=count + 1)
        np.maximum.at(peak, owner, plane[rows][inside])
    return peak[1:], area[1:]
