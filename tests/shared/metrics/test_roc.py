"""ROC curve of pooled pixels, against scikit-learn."""

import numpy as np
import pytest
from real_labels import wheel_nuclei
from sklearn.metrics import roc_curve

from shared.metrics.roc import BINS, ProbabilityHistogram, probability_histogram

IMAGE, TRUTH = wheel_nuclei()
PROBABILITY = (IMAGE / IMAGE.max()).astype(np.float32)


@pytest.mark.parametrize("known", [None, TRUTH % 5 != 1])
def test_the_curve_is_sklearns(known):
    halves = [np.s_[:300], np.s_[300:]]
    total = sum(
        (probability_histogram(TRUTH[h], PROBABILITY[h], None if known is None else known[h]) for h in halves),
        ProbabilityHistogram(),
    )
    every = np.ones(TRUTH.shape, bool) if known is None else known
    bins = np.minimum(np.floor(PROBABILITY[every] * BINS), BINS - 1) / BINS
    theirs = np.stack(roc_curve(TRUTH[every] > 0, bins, drop_intermediate=False), axis=1)
    assert total.roc()[0] == (0, 0, 1), "JSON has no infinity"
    assert len(theirs) > 100 and np.allclose(total.roc()[1:], theirs[1:], rtol=0, atol=1e-12)
    assert total.counts.sum() == every.sum()


def test_without_one_of_the_classes_there_is_no_curve():
    nothing, probability = np.zeros((4, 5), np.uint8), np.full((4, 5), 0.25, np.float32)
    background = probability_histogram(nothing, probability)
    assert background.counts.sum(axis=1).tolist() == [20, 0] and background.roc() == []
    both = background + probability_histogram(nothing + 7, 3 * probability)
    assert both.roc() == [(0, 0, 1), (0, 1, 0.75), (1, 1, 0.25)]
    assert probability_histogram(nothing, probability, np.zeros((4, 5), bool)).counts.sum() == 0
    assert ProbabilityHistogram().roc() == []
