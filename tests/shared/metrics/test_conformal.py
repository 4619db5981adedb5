"""Conformal thresholds: equal to crepes and MAPIE, and the promise holds on new images."""

import numpy as np
import pytest
from crepes import ConformalClassifier

from shared.metrics.conformal import (
    class_thresholds,
    distance_limit,
    min_calibration_images,
    plausible_classes,
    prediction_sets,
)
from shared.system.errors import UserError


def draw(n: int, seed: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, classes) and true classes (n,) of an imperfect classifier."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes)) + 2.0 * np.eye(classes)[truth] * (1 + truth[:, None])
    odds = np.exp(logits)
    return odds / odds.sum(axis=1, keepdims=True), truth


def own_probabilities(probability: np.ndarray, truth: np.ndarray) -> list[np.ndarray]:
    return [probability[truth == k, k] for k in range(probability.shape[1])]


PROBABILITY, TRUTH = draw(311, 0)
NEW, NEW_TRUTH = draw(4000, 1)


@pytest.mark.parametrize("target_error", [0.03, 0.053, 0.117, 0.31])
def test_plausible_classes_are_those_of_crepes(target_error):
    thresholds = class_thresholds(own_probabilities(PROBABILITY, TRUTH), target_error)
    ours = plausible_classes(NEW, thresholds)
    for k in range(3):
        alphas, of_class = 1 - PROBABILITY[k == TRUTH, k], 1 - NEW[:, [k]]
        theirs = ConformalClassifier().fit(alphas).predict_set(of_class, confidence=1 - target_error, smoothing=False)
        assert np.array_equal(ours[:, k], theirs[:, 0].astype(bool))
    assert 0 < ours.mean() < 1


def test_the_threshold_of_one_class_is_mapies():
    """MAPIE's split conformal classifier has one threshold for all classes; a single class has just that one."""
    from mapie.classification import SplitConformalClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):
        """Takes the probabilities themselves as features."""

        classes_ = np.arange(3)

        def fit(self, x, y):
            return self

        def predict_proba(self, x):
            return x

        def predict(self, x):
            return x.argmax(axis=1)

        def __sklearn_is_fitted__(self):
            return True

    for target_error in (0.05, 0.1, 0.2):
        peer = SplitConformalClassifier(Given(), confidence_level=1 - target_error, conformity_score="lac")
        peer.conformalize(PROBABILITY, TRUTH)
        theirs = peer.predict_set(NEW)[1][:, :, 0]
        pooled = PROBABILITY[np.arange(len(TRUTH)), TRUTH]
        ours = plausible_classes(NEW, class_thresholds([pooled], target_error))
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("target_error", [0.05, 0.2])
def test_the_true_class_is_missing_as_often_as_promised_in_each_class(target_error):
    missing = np.zeros(3)
    for seed in range(40):
        thresholds = class_thresholds(own_probabilities(*draw(400, 100 + seed)), target_error)
        sets = plausible_classes(NEW, thresholds)
        missing += [1 - sets[k == NEW_TRUTH, k].mean() for k in range(3)]
    assert (missing / 40 < target_error + 0.01).all() and (missing / 40 > target_error - 0.02).all()


def test_sets_hold_the_plausible_classes_and_the_most_probable_one():
    plausible = plausible_classes(NEW, thresholds := np.array([0.9, 0.8, 0.1]))
    best = np.eye(3, dtype=bool)[NEW.argmax(axis=1)]
    assert (~plausible.any(axis=1)).any() and (plausible & ~best).any()
    assert np.array_equal(prediction_sets(NEW, thresholds), plausible | best)


def test_few_calibration_images_are_refused_with_the_number_needed():
    assert [min_calibration_images(error) for error in (0.5, 0.1, 0.05, 0.01)] == [1, 9, 19, 99]
    enough = np.linspace(0.1, 0.9, 19)
    assert class_thresholds([enough, enough], 0.05) == pytest.approx([0.1, 0.1])
    with pytest.raises(UserError, match=r"0.05: needs 19 .* 18 of class sick; .* to 0.053"):
        class_thresholds([enough, enough[1:]], 0.05, ["well", "sick"])
    assert class_thresholds([enough[1:]], 0.053)[0] == enough[1], "what the message suggests works"


def test_new_images_of_the_same_kind_are_rarely_far_and_a_small_set_sets_no_limit():
    rng = np.random.default_rng(0)
    far = [(rng.normal(size=5000) > distance_limit(rng.normal(size=199), 0.99)).mean() for _ in range(50)]
    assert 0.002 < np.mean(far) < 0.012
    assert distance_limit(range(1, 100), 0.99) == 99
    assert distance_limit(range(1, 99), 0.99) == float("inf") == distance_limit([], 0.5)
