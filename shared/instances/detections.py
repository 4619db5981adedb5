"""Represent detected objects as boxes with scores and classes; suppress boxes of objects that were found twice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.artifacts.annotation import Annotation


@dataclass(frozen=True)
class Detections:
    """The objects that a detector found in one image."""

    boxes: np.ndarray
    """(n, 4) float32: x0, y0, x1, y1 in px."""
    scores: np.ndarray
    """(n,) float32 in [0, 1]."""
    classes: np.ndarray
    """(n,) int64, positions in the names of the model's classes."""
    full_tiles: int = 0
    """Tiles in which all queries of the network were used, so that more objects may be there."""

    @classmethod
    def empty(cls) -> "Detections":
        """No object."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.scores)

    def __getitem__(self, index: np.ndarray) -> "Detections":
        """Select objects by a mask (n,) or by indices."""
        return Detections(self.boxes[index], self.scores[index], self.classes[index], self.full_tiles)

    def above(self, score: float) -> "Detections":
        """Objects of at least this score."""
        return self[self.scores >= score]

    def annotations(self, names: Sequence[str]) -> list[Annotation]:
        """Objects as annotations, highest score first; names: of the classes. The area is that of the box."""
        found = []
        for i in np.argsort(-self.scores, kind="stable"):
            x0, y0, x1, y1 = (float(value) for value in self.boxes[i])
            box = (x0, y0, x1 - x0, y1 - y0)
            score = float(self.scores[i])
            found.append(Annotation(names[self.classes[i]], box, area=box[2] * box[3], score=score))
        return found


def box_area(boxes: np.ndarray) -> np.ndarray:
    """Areas (...,) of boxes (..., 4) x0, y0, x1, y1; 0 where a box is empty."""
    return np.prod(np.clip(boxes[..., 2:] - boxes[..., :2], 0, None), axis=-1)


def box_intersection(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Boxes (n, 4) and (m, 4) -> areas (n, m) of their intersections."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return np.prod(np.clip(high - low, 0, None), axis=-1)


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Boxes (n, 4) and (m, 4) -> IoU (n, m) in [0, 1]; 0 for two boxes without area."""
    shared = box_intersection(first, second)
    union = box_area(first)[:, None] + box_area(second)[None] - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1), 0)


def suppress_duplicates(found: Detections, iou: float) -> Detections:
    """Non-maximum suppression: drop a box whose IoU with a higher-scoring one of its class exceeds `iou`.

    Returns the others, highest score first.
    """
    order = np.argsort(-found.scores, kind="stable")
    found = found[order]
    suppressed = np.zeros(len(found), bool)
    overlap = (box_iou(found.boxes, found.boxes) > iou) & (found.classes[:, None] == found.classes[None])
    for i in range(len(found)):
        if not suppressed[i]:
            suppressed[i + 1 :] |= overlap[i, i + 1 :]
    return found[~suppressed]
