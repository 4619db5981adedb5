"""Evaluator: SEG and DET of the Cell Tracking Challenge (Matula et al. 2015, PLOS ONE 10:e0144959)."""

from collections.abc import Iterator

import numpy as np

from shared.metrics.contingency import Overlap
from shared.metrics.ratio import ratio

SPLIT, MISSED, SPURIOUS = 5.0, 10.0, 1.0
"""AOGM weights of a split, a false negative and a false positive."""


def covered(pairs: Overlap) -> np.ndarray:
    """Indices (M,) of the pairs whose predicted object covers more than half of the true one.

    The detection test of Matula et al. 2015, which SEG uses as well. A true object is in one pair at most.
    """
    return np.flatnonzero(2 * pairs.area > pairs.true_area[pairs.true])


def tracking_metrics(
    true: int, predicted: int, covered_iou: float, splits: int, missed: int, spurious: int
) -> Iterator[tuple[str, float]]:
    """(name, value) from pooled counts of objects.

    seg: mean over all true objects of the IoU with the predicted object that covers them. det: 1 - AOGM-D / AOGM-D0.
    """
    yield "seg", ratio(covered_iou, true, predicted)
    cost, scratch = SPLIT * splits + MISSED * missed + SPURIOUS * spurious, MISSED * true
    yield "det", ratio(scratch - min(cost, scratch), scratch, predicted)


NAMES = tuple(dict(tracking_metrics(0, 0, 0.0, 0, 0, 0)))
"""Names of the metrics that this evaluator yields."""
