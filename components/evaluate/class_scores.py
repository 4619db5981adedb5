"""Score the classes of images: predict or read them, and compare them with the truth."""

from collections import Counter
from functools import partial
from typing import Any

import numpy as np

from components.evaluate.class_page import ClassResults, show_classes
from components.evaluate.class_predictions import PredictedClasses, classifier_predictions, stored_classes
from components.evaluate.component import Evaluate
from components.evaluate.scored_images import PredictedImages, SplitImages, choose_split, without_failed
from components.evaluate.scored_part import ScoredPart
from components.evaluate.subject import Subject
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import LabelReader
from shared.metrics.classes import class_metrics, confusion_matrix, roc_curve
from shared.metrics.classification import Classification

_COLUMNS = ["image", "source", "true_class", "class", "score", "true_class_score", "outcome", "distance"]
_MAX_ROC_POINTS = 257
"""Points of the ROC curve that is stored; the thresholds are evenly spread over the images."""


def score_classes(stage: Evaluate, subject: Subject, images: ImageReader, truth: LabelReader) -> ScoredPart | None:
    """Score the images that have a class; None where the split has none."""
    classes = truth.classes()
    chosen = choose_split(classes, images, stage.split)
    left = without_failed(chosen.keys, subject.predictions)
    if not left.keys:
        return None
    keys = left.keys if stage.max_images == "all" else evenly_spaced(left.keys, stage.max_images)
    predicted = _predict(stage, subject, images, keys)
    names, probability = _with_unknown(predicted, {classes[key] for key in keys})
    true = np.array([names.index(classes[key]) for key in keys])
    metrics = dict(class_metrics(probability, true))
    if not predicted.known:
        metrics = {name: metrics[name] for name in ("accuracy", "balanced_accuracy")}
    metrics |= _answers(predicted, [classes[key] for key in keys])
    confusion = confusion_matrix(probability, true)
    curves = _curves(names, probability, true) if predicted.known else {}
    remark = _remark(chosen, left, set(names) - set(predicted.names))
    rows = [_row(images, key, classes[key], i, predicted) for i, key in enumerate(keys)]
    results = ClassResults(names, probability, true, metrics, confusion, curves, rows, predicted.known, remark)
    return ScoredPart(
        title="Classes",
        metrics=metrics,
        columns=_COLUMNS,
        rows=rows,
        classification=Classification(
            labels=names,
            confusion=confusion.astype(float).tolist(),
            roc=curves[names[1]] if len(names) == 2 and names[1] in curves else [],
        ),
        show=partial(show_classes, results=results, images=images),
        counts={f"images_of_{name}": count for name, count in sorted(Counter(classes[key] for key in keys).items())},
        learned_from=chosen.learned_from,
        remark=remark,
    )


def _predict(stage: Evaluate, subject: Subject, images: ImageReader, keys: list[str]) -> PredictedClasses:
    if subject.model is not None:
        return classifier_predictions(stage, subject.model, images, keys)
    assert subject.predictions is not None
    return stored_classes(subject.predictions, keys)


def _with_unknown(predicted: PredictedClasses, true: set[str]) -> tuple[list[str], np.ndarray]:
    """Append the true classes that are never predicted, with probability 0: images of them are wrong."""
    unknown = sorted(true - set(predicted.names))
    return [*predicted.names, *unknown], np.pad(predicted.probability, ((0, 0), (0, len(unknown))))


def _answers(predicted: PredictedClasses, true: list[str]) -> dict[str, float]:
    """Metrics of gated inference: the share of the images that it answers, and the share of wrong answers."""
    outcomes = [item.outcome for item in predicted.images]
    if not any(outcomes):
        return {}
    answers = [(item, name) for item, name in zip(predicted.images, true, strict=True) if item.outcome != "abstain"]
    found = {"answered": len(answers) / len(true)}
    if answers:
        found["answered_error"] = sum(item.name != name for item, name in answers) / len(answers)
    return found


def _curves(names: list[str], probability: np.ndarray, true: np.ndarray) -> dict[str, list[tuple[float, float, float]]]:
    """ROC curve of the positive class, or of each of more than two classes against the rest."""
    columns = [1] if len(names) == 2 else range(len(names))
    curves = {names[column]: roc_curve(probability[:, column], true == column) for column in columns}
    return {name: _thin(curve) for name, curve in curves.items() if curve}


def _thin(curve: list[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    return evenly_spaced(curve, _MAX_ROC_POINTS)


def _row(images: ImageReader, key: str, true: str, number: int, predicted: PredictedClasses) -> dict[str, Any]:
    item = predicted.images[number]
    chances = dict(zip(predicted.names, predicted.probability[number].tolist(), strict=True))
    row: dict[str, Any] = {"image": key, "source": images.entries[key].source, "true_class": true, "class": item.name}
    if predicted.known:
        row |= {"score": chances[item.name], "true_class_score": chances.get(true, 0.0)}
    if item.outcome is not None:
        row["outcome"] = item.outcome
    return row | ({} if item.distance is None else {"distance": float(item.distance)})


def _remark(chosen: SplitImages, left: PredictedImages, unknown: set[str]) -> str:
    texts = [*chosen.remarks(), *left.remarks()]
    if unknown:
        listed = ", ".join(sorted(unknown))
        texts.append(f"Classes that are not known to the model: {listed}; their images count as wrong.")
    return " ".join(texts)
