"""Compare what two networks predict on the same images: raw outputs, and metrics."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from components.export_model.evaluation_set import EvaluationSet, MaskTruth, Truth
from components.export_model.exportable import Exportable
from components.export_model.predictions import Outputs, Predictions
from shared.metrics.boxes import box_metrics
from shared.metrics.classes import class_metrics
from shared.metrics.tally import Tally, tally
from shared.models.box_predictor import MIN_SCORE

LOWER_IS_BETTER = ("ece",)
"""Metrics of which a smaller value is better."""


@dataclass(frozen=True)
class Comparison:
    """How a file compares with the weights."""

    max_difference: float
    """Largest difference of any raw output; infinite where one is not finite."""
    metrics: dict[str, float]
    """Metrics of the file."""
    reference: dict[str, float]
    """The same metrics of the weights."""
    against: str
    """truth: the metrics are against the truth; weights: against what the weights find."""

    def loss_points(self) -> dict[str, float]:
        """Metric -> points (hundredths) by which the file is worse than the weights; negative where it is better."""
        signs = {name: -1 if name in LOWER_IS_BETTER else 1 for name in self.metrics}
        return {
            name: 100 * signs[name] * (self.reference[name] - value) if name in self.reference else 0.0
            for name, value in self.metrics.items()
        }


def compare(found: Predictions, weights: Predictions, subject: Exportable, images: EvaluationSet) -> Comparison:
    """Compare the predictions of a file with those of the weights, by the truth where there is one."""
    difference = max_difference(found, weights, subject)
    if images.truth:
        values = [_metrics(one, images.truth, subject) for one in (found, weights)]
        return Comparison(difference, values[0], values[1], "truth")
    if subject.kind == "encoder":
        return Comparison(difference, {"cosine": _cosine(found, weights)}, {"cosine": 1.0}, "weights")
    truth = _as_truth(weights, subject)
    agreement = _metrics(found, truth, subject)
    agreement.pop("ece", None)
    return Comparison(difference, agreement, dict.fromkeys(agreement, 1.0), "weights")


def _as_truth(weights: Predictions, subject: Exportable) -> list[Truth]:
    """What the weights find, as if it were true."""
    if weights.probability is not None:
        return [int(number) for number in weights.probability.argmax(axis=1)]
    if subject.kind == "segmentor":
        return [MaskTruth(labels, None, True) for labels in weights.labels]
    threshold = subject.metadata.postprocessing["score_threshold"]
    return [found.above(threshold).annotations(subject.metadata.classes) for found in weights.detections]


def _metrics(found: Predictions, truth: Sequence[Truth], subject: Exportable) -> dict[str, float]:
    """Dice and F1; accuracy and ECE; or AP."""
    if found.probability is not None:
        values = dict(class_metrics(found.probability, np.array(truth)))
        return {name: values[name] for name in ("accuracy", "ece")}
    if subject.kind == "segmentor":
        return _mask_metrics(found.labels, [item for item in truth if isinstance(item, MaskTruth)])
    true = {str(i): item for i, item in enumerate(truth) if isinstance(item, list)}
    names = subject.metadata.classes
    boxes = {str(i): item.annotations(names) for i, item in enumerate(found.detections)}
    values = box_metrics(true, boxes)
    if values:
        return {name: values[name] for name in ("ap", "ap50")}
    threshold = subject.metadata.postprocessing["score_threshold"]  # no true object: none may be found
    return {"ap": float(not any(len(item.above(threshold)) for item in found.detections))}


def _mask_metrics(labels: Sequence[np.ndarray], truth: Sequence[MaskTruth]) -> dict[str, float]:
    total = sum(
        (
            tally(true.labels, own, known=true.known, instances=true.instances)
            for true, own in zip(truth, labels, strict=True)
        ),
        Tally(),
    )
    values = total.metrics()
    return {name: values[name] for name in ("dice", "f1") if name in values}


def max_difference(found: Predictions, weights: Predictions, subject: Exportable) -> float:
    """Largest difference of the raw outputs for the same input; infinite where one is not finite.

    Features are measured in standard deviations, distances from the training images relative to their mean. Of a
    detector, each query of a score that counts is compared with the most similar one of the other network: equal scores
    may change the order of the queries.
    """
    largest = 0.0
    common = [key for key in weights.raw if key in found.raw]
    if not common:
        return float("inf")
    for key in common:
        outputs, expected = found.raw[key], weights.raw[key]
        if not all(np.isfinite(output).all() for output in outputs):
            return float("inf")
        if subject.kind == "detector":
            largest = max(largest, _query_difference(outputs, expected))
            continue
        for name, output, other in zip(subject.outputs, outputs, expected, strict=True):
            largest = max(largest, float(np.abs(output - other).max()) / _scale(name, other))
    return largest


def _scale(name: str, expected: np.ndarray) -> float:
    """Unit in which differences of an output are measured."""
    if name == "features":
        return max(float(expected.std()), 1e-6)
    return max(float(expected.mean()), 1e-6) if name == "distance" else 1.0


def _query_difference(outputs: Outputs, expected: Outputs) -> float:
    largest = 0.0
    for scores, boxes, true_scores, true_boxes in zip(*outputs, *expected, strict=True):
        found = np.concatenate([scores, boxes], axis=1)
        for query in np.concatenate([true_scores, true_boxes], axis=1)[true_scores.max(axis=1) >= MIN_SCORE]:
            largest = max(largest, float(np.abs(found - query).max(axis=1).min()))
    return largest


def _cosine(found: Predictions, weights: Predictions) -> float:
    """Mean cosine of the feature vectors of file and weights."""
    values = []
    for key, (expected,) in weights.raw.items():
        output = found.raw[key][0]
        length = np.linalg.norm(output, axis=1) * np.linalg.norm(expected, axis=1)
        values.append(((output * expected).sum(axis=1) / np.maximum(length, 1e-12)).mean())
    return float(np.mean(values))
