"""Evaluator: instances, matched one to one by their IoU."""

from collections.abc import Iterator, Mapping

import numpy as np

from shared.metrics.contingency import Overlap
from shared.metrics.ratio import ratio

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
"""IoU thresholds of the average precision; `map` is the mean over them."""


def instance_metrics(
    true: int, predicted: int, matched: Mapping[float, int], matched_iou: float, mean_aji: float
) -> Iterator[tuple[str, float]]:
    """(name, value) from pooled counts of objects.

    matched: IoU threshold -> matched pairs; matched_iou: sum of IoU over the pairs matched at 0.5.
    precision, recall, f1: at IoU 0.5. ap50, ap75: TP / (TP + FP + FN) at that IoU, as StarDist (arXiv:1806.03535) and
    Cellpose define it; map: its mean over THRESHOLDS. pq: panoptic quality at 0.5, Kirillov et al. 2019,
    arXiv:1801.00868, equation 1. aji: mean over the images, see `aggregated_jaccard`.
    """
    objects = true + predicted
    average_precision = {threshold: ratio(n, objects - n) for threshold, n in matched.items()}
    yield "precision", ratio(matched[0.5], predicted, true)
    yield "recall", ratio(matched[0.5], true, predicted)
    yield "f1", ratio(2 * matched[0.5], objects)
    yield "ap50", average_precision[0.5]
    yield "ap75", average_precision[0.75]
    yield "map", float(np.mean(list(average_precision.values())))
    yield "pq", ratio(2 * matched_iou, objects)
    yield "aji", mean_aji


NAMES = tuple(dict(instance_metrics(0, 0, dict.fromkeys(THRESHOLDS, 0), 0.0, 0.0)))
"""Names of the metrics that this evaluator yields."""


def aggregated_jaccard(pairs: Overlap) -> float:
    """Aggregated Jaccard index (AJI) of one image: Kumar et al. 2017, IEEE TMI 36:1550, algorithm 1.

    Each true object is paired with the predicted one of highest IoU (the lowest label among equals); several true
    objects may share one. Predicted objects without a partner add to the denominator.
    """
    order = np.lexsort((pairs.predicted, -pairs.iou, pairs.true))
    true, first = np.unique(pairs.true[order], return_index=True)
    best = order[first]
    used = np.zeros(len(pairs.predicted_area), bool)
    used[pairs.predicted[best]] = True
    alone = np.ones(len(pairs.true_area), bool)
    alone[true] = False
    union = pairs.union[best].sum() + pairs.true_area[alone].sum() + pairs.predicted_area[~used].sum()
    return ratio(int(pairs.area[best].sum()), int(union))
