"""Match predicted boxes with true ones by IoU, greedily by score, as COCO does (Lin et al. 2014, arXiv:1405.0312)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.artifacts.annotation import Annotation

IOU_THRESHOLD = 0.5
"""IoU from which two boxes match."""


_ROWS = 256
"""Predicted boxes whose IoU with all true ones are in memory at a time."""


@dataclass(frozen=True)
class BoxMatches:
    """The predicted boxes of one image and one class, by descending score, and what each one matches."""

    scores: np.ndarray
    """(n,) float64 in [0, 1], descending."""
    order: np.ndarray
    """(n,) int64, position of each box among those given."""
    partner: np.ndarray
    """(n,) int64, position of the true object that a box matches; -1: none."""
    ignored: np.ndarray
    """(n,) bool: the box lies on a crowd region, so it is neither right nor wrong."""
    objects: int
    """True objects, crowd regions not counted."""

    @property
    def hits(self) -> np.ndarray:
        """(n,) bool: true positives."""
        return (self.partner >= 0) & ~self.ignored


def box_iou(true: Sequence[Annotation], found: Sequence[Annotation]) -> np.ndarray:
    """(found, true) float64 IoU of every pair of boxes; for a crowd region, the share of the predicted box within it.

    >>> box_iou([Annotation("cell", (0, 0, 10, 10), 100)], [Annotation("cell", (5, 0, 10, 10), 100)]).round(3)
    array([[0.333]])
    """
    corners, others = (_corners(items) for items in (found, true))
    low = np.maximum(corners[:, None, :2], others[None, :, :2])
    high = np.minimum(corners[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    area, true_area = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (corners, others))
    crowd = np.array([bool(item.iscrowd) for item in true], bool)
    union = np.where(crowd[None], area[:, None], area[:, None] + true_area[None] - shared)
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _corners(items: Sequence[Annotation]) -> np.ndarray:
    """(n, 4) float64 x0, y0, x1, y1 in px."""
    boxes = np.array([item.bbox for item in items], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def match_boxes(
    true: Sequence[Annotation], found: Sequence[Annotation], threshold: float = IOU_THRESHOLD
) -> BoxMatches:
    """Match the boxes of one image; those of the highest score choose first, each the free object of highest IoU.

    Objects come before crowd regions, which any number of boxes may match. Categories are not compared. A box without
    a score counts as 1.
    """
    scores = np.array([1.0 if item.score is None else item.score for item in found], np.float64)
    order = np.argsort(-scores, kind="stable")
    crowd = np.array([bool(item.iscrowd) for item in true], bool)
    free, partner, ignored = ~crowd, np.full(len(found), -1), np.zeros(len(found), bool)
    for rank in range(len(found)):
        if rank % _ROWS == 0:  # a part of the matrix at a time: crowded images have ten thousands of boxes
            iou = box_iou(true, [found[number] for number in order[rank : rank + _ROWS]])
        chosen = _best(iou[rank % _ROWS], free, threshold)
        if chosen < 0:
            chosen = _best(iou[rank % _ROWS], crowd, threshold)
            ignored[rank] = chosen >= 0
        else:
            free[chosen] = False
        partner[rank] = chosen
    return BoxMatches(scores[order], order, partner, ignored, int((~crowd).sum()))


def _best(iou: np.ndarray, allowed: np.ndarray, threshold: float) -> int:
    """Position of the highest IoU (n,) among the allowed ones (n,) bool that reach the threshold, the last of equals.

    -1: none does. pycocotools lets the last of equal ones win.
    """
    able = np.flatnonzero(allowed & (iou >= min(threshold, 1 - 1e-10)))
    return int(able[len(able) - 1 - np.argmax(iou[able][::-1])]) if len(able) else -1
