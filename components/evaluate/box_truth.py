"""True boxes, and the classes by which they can be compared with predicted ones."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from shared.artifacts.annotation import Annotation
from shared.artifacts.coco import CELL
from shared.artifacts.label_set import LabelReader
from shared.metrics.boxes import categories

UNKNOWN_CLASS: str = CELL[0]["name"]
"""Class of objects whose class is not known: instances of a label image, and what is learned from them."""
BoxSet = dict[str, list[Annotation]]
"""Key of an image -> its objects."""


def boxes_of(labels: LabelReader) -> BoxSet:
    """Objects of each annotated image; where none is annotated, the boxes of the instances of the label images."""
    annotated = labels.annotations()
    if annotated:
        return annotated
    return {
        key: _instance_boxes(labels, key) for key, entry in sorted(labels.entries.items()) if entry.kind == "instances"
    }


def _instance_boxes(labels: LabelReader, key: str) -> list[Annotation]:
    mask, scores = labels.mask(key), labels.entries[key].scores
    area = np.bincount(mask.ravel())
    found = []
    for number, place in enumerate(ndimage.find_objects(mask.astype(np.int32)), 1):
        if place is None:
            continue
        y, x = place
        score = None if scores is None else scores[number - 1]
        box = float(x.start), float(y.start), float(x.stop - x.start), float(y.stop - y.start)
        found.append(Annotation(UNKNOWN_CLASS, box, float(area[number]), score=score))
    return found


@dataclass(frozen=True)
class Comparable:
    """True and predicted boxes whose classes can be compared."""

    truth: BoxSet
    found: BoxSet
    remark: str = ""
    """What was done to the classes, for people."""


def comparable(truth: BoxSet, found: BoxSet, known: set[str]) -> Comparable:
    """Compare without classes where either side has none.

    known: classes that the model can predict.
    """
    true = set(categories(truth))
    if {UNKNOWN_CLASS} in (true, known) and true != known:
        remark = "Boxes are compared without their classes, since "
        remark += "the truth has none." if true == {UNKNOWN_CLASS} else "the model has none."
        return Comparable(_without_classes(truth), _without_classes(found), remark)
    texts = []
    if absent := sorted(known - true):
        texts.append(f"Classes without true objects here: {', '.join(absent)}; they do not count in the averages.")
    if unknown := sorted(true - known):
        texts.append(f"Classes that are not known to the model: {', '.join(unknown)}; their objects count as missed.")
    return Comparable(truth, found, " ".join(texts))


def _without_classes(boxes: Mapping[str, list[Annotation]]) -> BoxSet:
    return {key: [replace(item, category=UNKNOWN_CLASS) for item in found] for key, found in boxes.items()}
