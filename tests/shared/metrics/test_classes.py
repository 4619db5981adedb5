"""Metrics of classes equal scikit-learn's, on scores with ties and for two classes and more."""

import numpy as np
import pytest
from sklearn import metrics as theirs
from sklearn.calibration import calibration_curve

from shared.metrics.classes import (
    NAMES,
    average_precision,
    class_metrics,
    confusion_matrix,
    expected_calibration_error,
    reliability,
    roc_curve,
)


def predictions(classes: int, count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, K) of three decimals at most, so that many are equal, and true classes (n,)."""
    rng = np.random.default_rng(classes)
    truth = rng.integers(classes, size=count)
    logits = rng.normal(size=(count, classes)) + 1.2 * np.eye(classes)[truth]
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rounded = np.round(probability[:, :-1], 2)
    return np.column_stack([rounded, 1 - rounded.sum(axis=1)]), truth


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_metrics_are_scikit_learns(classes: int) -> None:
    probability, truth = predictions(classes)
    found = dict(class_metrics(probability, truth))
    assert tuple(found) == NAMES
    one_hot, named = np.eye(classes)[truth], probability.argmax(axis=1)
    score = probability[:, 1] if classes == 2 else probability
    expected = {
        "accuracy": theirs.accuracy_score(truth, named),
        "balanced_accuracy": theirs.balanced_accuracy_score(truth, named),
        "auroc": theirs.roc_auc_score(truth, score, multi_class="ovr"),
        "average_precision": theirs.average_precision_score(truth if classes == 2 else one_hot, score),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert confusion_matrix(probability, truth).tolist() == theirs.confusion_matrix(truth, named).tolist()


def test_the_roc_curve_is_scikit_learns() -> None:
    probability, truth = predictions(2)
    false_rate, true_rate, threshold = theirs.roc_curve(truth, probability[:, 1], drop_intermediate=False)
    expected = np.column_stack([false_rate, true_rate, np.append(1.0, threshold[1:])])
    assert np.array(roc_curve(probability[:, 1], truth == 1)) == pytest.approx(expected)
    assert roc_curve(probability[:, 1], truth < 2) == roc_curve(probability[:, 1], truth > 1) == []


def test_reliability_and_its_error_follow_scikit_learns_curve() -> None:
    probability, truth = predictions(3)
    confidence, right = probability.max(axis=1), probability.argmax(axis=1) == truth
    accuracy, mean_confidence = calibration_curve(right, confidence, n_bins=15)
    found = reliability(probability, truth)
    assert [row[:2] for row in found] == [pytest.approx(pair) for pair in zip(mean_confidence, accuracy, strict=True)]
    counts = np.array([count for *_, count in found])
    assert counts.sum() == len(truth)
    expected = (counts * np.abs(accuracy - mean_confidence)).sum() / len(truth)
    assert expected_calibration_error(probability, truth) == pytest.approx(expected)


def test_a_certain_and_right_prediction_is_perfect() -> None:
    truth = np.array([0, 1, 2, 1])
    assert dict(class_metrics(np.eye(3)[truth], truth)) == dict.fromkeys(NAMES, 1.0) | {"ece": 0.0}


def test_what_the_images_cannot_tell_is_left_out() -> None:
    probability, truth = predictions(3)
    assert dict(class_metrics(probability[:0], truth[:0])) == {}
    alone = dict(class_metrics(probability[truth == 1], truth[truth == 1]))
    assert set(alone) == {"accuracy", "balanced_accuracy", "ece"} and alone["accuracy"] == alone["balanced_accuracy"]
    two = truth != 2
    found = dict(class_metrics(probability[two], truth[two]))
    expected = np.mean([theirs.roc_auc_score(truth[two] == c, probability[two, c]) for c in (0, 1)])
    assert found["auroc"] == pytest.approx(expected)
    named = [average_precision(probability[two, c], truth[two] == c) for c in (0, 1)]
    assert found["average_precision"] == pytest.approx(np.mean(named))
