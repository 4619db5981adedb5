"""Map what was found in an enlarged image back to the image as it is stored."""

from dataclasses import replace

import numpy as np

from shared.artifacts.annotation import Annotation
from shared.exporters.exporter import Instances, PredictedImage
from shared.imaging.resize import reduce_labels


def at_stored_size(predicted: PredictedImage, stored: np.ndarray) -> PredictedImage:
    """Return the prediction of an image for its stored form; itself where the image is not enlarged.

    stored: (H, W, C), the image as it is stored.
    """
    factor = predicted.entry.magnification
    if factor == 1:
        return predicted
    instances, boxes = predicted.instances, predicted.boxes
    return replace(
        predicted,
        entry=predicted.entry.stored(),
        image=stored,
        instances=None if instances is None else reduce_instances(instances, factor),
        boxes=None if boxes is None else [_reduced_box(box, factor) for box in boxes],
    )


def reduce_instances(found: Instances, factor: int) -> Instances:
    """Reduce instances by a factor; those that no pixel is left of are dropped."""
    if factor == 1:
        return found
    labels = reduce_labels(found.labels, factor)
    kept = np.unique(labels[labels > 0])
    table = np.zeros(len(found.scores) + 1, found.labels.dtype)
    table[kept] = np.arange(1, len(kept) + 1)
    mask = np.ascontiguousarray(reduce_labels(found.mask, factor))
    return Instances(mask, table[labels], found.scores[kept.astype(np.int64) - 1], found.estimated_dice)


def _reduced_box(box: Annotation, factor: int) -> Annotation:
    x, y, width, height = (length / factor for length in box.bbox)
    return replace(box, bbox=(x, y, width, height), area=box.area / factor**2)
