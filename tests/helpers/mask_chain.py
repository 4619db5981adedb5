"""The mask chain (distance, components, peaks, watershed) by scipy and scikit-image alone, and a measure of similarity.

Tests compare the result of `shared.instances.watershed.split_touching` with it, the benchmark compares the time.
"""

import cv2
import numpy as np
from real_labels import wheel_nuclei
from scipy import ndimage
from skimage.measure import label
from skimage.morphology import remove_small_holes, remove_small_objects
from skimage.segmentation import watershed

from shared.instances.watershed import DISTANCE_STEPS, MAX_HOLE_PX
from shared.metrics.contingency import overlap

PLAIN = {"merge_threshold": 1.0, "min_area_share": 0.0}
"""Settings of `split_touching` that match the chain here: seeds are never merged, and no object is dropped for being
small beside the others. Its other settings are those of `scipy_chain`."""


def mosaic(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (side, side) uint16 and label image of repeated real nuclei, numbered 1..n: 500 on 1024 px."""
    image, labels = wheel_nuclei()
    times = -(-side // len(labels))
    number = np.kron(np.arange(times**2).reshape(times, times), np.ones(labels.shape, np.int32))
    tiled = np.tile(labels.astype(np.int32), (times, times))
    many = np.where(tiled > 0, tiled + number * int(labels.max()), 0)[:side, :side]
    numbered = np.unique(many, return_inverse=True)[1].reshape(many.shape)  # there is background: it becomes 0
    return np.tile(image, (times, times))[:side, :side], numbered.astype(np.uint16)


def scipy_chain(mask: np.ndarray, min_seed_distance: int = 4, min_area: int = 16) -> np.ndarray:
    """Foreground mask (H, W) -> label image (H, W), on the whole image, by the definitions of `split_touching`.

    A seed is a connected plateau of the rounded, smoothed distance that no pixel within `min_seed_distance` px exceeds.
    Two differences remain: a close neighbour's distance may hide an object's peak, which cannot happen to objects
    processed one by one; and the watershed's order among equal pixels.
    """
    filled = remove_small_holes(mask > 0, max_size=MAX_HOLE_PX, connectivity=2)
    distance = ndimage.distance_transform_edt(filled).astype(np.float32)
    elevation = np.rint(ndimage.gaussian_filter(distance, 1, mode="nearest") * DISTANCE_STEPS)
    window = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * min_seed_distance + 1,) * 2).astype(bool)
    peaks = (ndimage.maximum_filter(elevation, footprint=window) == elevation) & filled
    parts = watershed(-elevation, label(peaks, connectivity=2), mask=filled)
    return remove_small_objects(parts, max_size=min_area - 1)


def mean_iou(reference: np.ndarray, found: np.ndarray) -> tuple[float, int, int]:
    """Mean over the reference's objects of the IoU with the best-overlapping one found, 0 where there is none.

    Both are label images (H, W). Returns the numbers of objects in both as well.
    """
    pairs = overlap(reference, found)
    best = np.zeros(len(pairs.true_area))
    np.maximum.at(best, pairs.true, pairs.iou)
    return float(best.mean()) if len(best) else 1.0, len(pairs.true_area), len(pairs.predicted_area)
