"""Score predicted label images on held-out images, against label images or boxes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage.measure
from quality_sets import BOX_SETS, KINDS

from shared.artifacts.annotation import Annotation
from shared.artifacts.image_set import ImageReader
from shared.artifacts.label_set import LabelReader
from shared.metrics.tally import Tally, tally

Predicted = Callable[[str, np.ndarray], np.ndarray]
"""Key and image (H, W, C) -> label image (H, W)."""


def scored(name: str, images: ImageReader, truth: LabelReader, predicted: Predicted) -> dict[str, dict[str, float]]:
    """Score the held-out images of a set: kind -> metrics, and `all` where there are several kinds."""
    if name in BOX_SETS:
        return {name: score_centres(images, truth, predicted)}
    totals: dict[str, Tally] = {}
    for key in images.keys("test"):
        folder = Path(images.entries[key].source).parent.name
        kind = KINDS.get(folder, folder)
        totals[kind] = totals.get(kind, Tally()) + tally(truth.mask(key), predicted(key, images.read(key)))
    if len(totals) > 1:
        totals["all"] = sum(totals.values(), Tally())
    return {kind: total.metrics() for kind, total in totals.items()}


def score_centres(images: ImageReader, truth: LabelReader, predicted: Predicted) -> dict[str, float]:
    """Score instances against boxes: the share of the boxes that hold the centroid of exactly one instance.

    found_once: that share, f1: with the instances whose centroid lies in no box as false positives. A centroid in
    several boxes belongs to the one whose centre is nearest.
    """
    annotations = truth.annotations()
    boxes = once = instances = 0
    for key in images.keys("test"):
        counts, found = count_centroids(annotations.get(key, []), predicted(key, images.read(key)))
        boxes, once, instances = boxes + len(counts), once + int((counts == 1).sum()), instances + found
    return {"found_once": once / max(boxes, 1), "f1": 2 * once / max(boxes + instances, 1)}


def count_centroids(boxes: list[Annotation], labels: np.ndarray) -> tuple[np.ndarray, int]:
    """Number of centroids of a label image (H, W) in each box, (n,), and number of instances."""
    corners = np.array([box.bbox for box in boxes], np.float64).reshape(-1, 4)
    centres, counts = corners[:, :2] + corners[:, 2:] / 2, np.zeros(len(boxes), int)
    regions = skimage.measure.regionprops(labels.astype(np.int64))
    for region in regions:
        centroid = np.array(region.centroid[::-1]) + 0.5
        inside = (corners[:, :2] <= centroid).all(1) & (centroid <= corners[:, :2] + corners[:, 2:]).all(1)
        if inside.any():
            distance = np.where(inside, np.square(centres - centroid).sum(1), np.inf)
            counts[int(distance.argmin())] += 1
    return counts, len(regions)
