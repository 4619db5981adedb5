"""The page of `train_classifier`."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from components.train_classifier.component import TrainClassifier
from components.train_classifier.labelled_images import LabelledImages
from components.train_classifier.saliency import saliency
from components.train_classifier.splits import LabelledKeys
from shared.imaging.overlays import to_rgb8
from shared.metrics.classes import NAMES, class_metrics, confusion_matrix, reliability, roc_curve
from shared.metrics.conformal import class_thresholds, min_calibration_images, prediction_sets
from shared.models.class_predictor import ClassPrediction
from shared.models.classifier import Classifier
from shared.reporting.page import Page
from shared.training.history import History, plot_points

EXAMPLES = 6
"""Images in each row of examples."""
SHOWN_PX = 180
"""Side of an example on the page."""
MAX_CLASSES = 30
"""Classes up to which the confusion matrix and the ROC curves are shown."""
TARGET_ERRORS = (0.01, 0.02, 0.05, 0.1)
"""Target errors of the table of abstention."""


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier after training, and what it predicts of its images."""

    classifier: Classifier
    images: LabelledImages
    keys: LabelledKeys
    predictions: dict[str, ClassPrediction]
    """Split -> prediction of its images."""
    history: History
    """(step, loss)"""
    scores: History
    """(step, negative log-likelihood) of val."""


def make_page(stage: TrainClassifier, trained: TrainedClassifier, where: str) -> Page:
    """Page of the training, the scores of every split, calibration, and examples with their saliency."""
    page, keys = Page("train_classifier"), trained.keys
    page.text(f"{len(keys.train)} training images of {len(keys.classes)} classes: {', '.join(keys.classes)}.")
    _splits(page, trained)
    page.plot("loss", {"train": plot_points(trained.history)}, x="step", y="loss")
    if trained.scores:
        page.plot("early stop", {"val": trained.scores}, x="step", y="negative log-likelihood")
    shown = keys.shown
    _confusion(page, trained, shown)
    _curves(page, trained)
    _abstention(page, trained, shown)
    _examples(page, trained, shown, where)
    return page


def _splits(page: Page, trained: TrainedClassifier) -> None:
    """Table of the metrics and the images of every split."""
    keys, rows = trained.keys, []
    for split, found in trained.predictions.items():
        members = getattr(keys, split)
        values = dict(class_metrics(found.probability, keys.labels(members)))
        rows.append([split, len(members), *(values.get(name, "") for name in NAMES), *keys.counts(members).tolist()])
    page.table(["split", "images", *NAMES, *keys.classes[:MAX_CLASSES]], rows)
    page.text(
        "auroc and average_precision are of the second class; of more than two classes, the mean of each against the "
        "rest. ece is the expected calibration error. Numbers below the names of classes are images."
    )


def _confusion(page: Page, trained: TrainedClassifier, split: str) -> None:
    names = trained.keys.classes
    if len(names) > MAX_CLASSES:
        return
    page.heading(f"Confusion matrix, {split}")
    matrix = confusion_matrix(trained.predictions[split].probability, trained.keys.labels(getattr(trained.keys, split)))
    rows = [[f"true {name}", *row] for name, row in zip(names, matrix.tolist(), strict=True)]
    page.table(["", *(f"predicted {name}" for name in names)], rows)


def _curves(page: Page, trained: TrainedClassifier) -> None:
    """Reliability diagram and ROC curves of val and test, if there are any."""
    if trained.keys.shown == "train":
        return
    page.heading("Reliability and ROC")
    keys, parts = trained.keys, {"ideal": [(0.0, 0.0), (1.0, 1.0)]}
    curves = {}
    for split in ("val", "test"):
        if split not in trained.predictions:
            continue
        probability, labels = trained.predictions[split].probability, keys.labels(getattr(keys, split))
        parts[split] = [(confidence, accuracy) for confidence, accuracy, _ in reliability(probability, labels)]
        for number, name in list(enumerate(keys.classes))[1 if len(keys.classes) == 2 else 0 : MAX_CLASSES]:
            points = roc_curve(probability[:, number], labels == number)
            curves[f"{split} {name}"] = [(false, true) for false, true, _ in points]
    page.plot("reliability", parts, x="confidence", y="accuracy")
    page.plot("ROC", curves, x="false positive rate", y="true positive rate")


def _abstention(page: Page, trained: TrainedClassifier, split: str) -> None:
    """Table of how many images are answered at a target error, and how many of the answers are wrong."""
    page.heading("Abstention")
    calibration = trained.classifier.config.postprocessing.calibration
    labels, smallest = trained.keys.labels(getattr(trained.keys, split)), min(map(len, calibration))
    rows: list[list[object]] = []
    for target in TARGET_ERRORS:
        if smallest < min_calibration_images(target):
            rows.append([target, f"needs {min_calibration_images(target)} calibration images of each class", ""])
            continue
        plausible = prediction_sets(trained.predictions[split].probability, class_thresholds(calibration, target))
        answered = plausible.sum(axis=1) == 1
        wrong = plausible.argmax(axis=1)[answered] != labels[answered]
        rows.append([target, float(answered.mean()), float(wrong.mean()) if len(wrong) else ""])
    page.table(["target error", f"answered of {split}", "wrong among the answered"], rows)
    page.text(
        f"`infer` abstains where several classes are plausible at the target error. The thresholds are those of "
        f"split conformal prediction on {len(trained.keys.calibration)} images of val, {smallest} of the rarest class."
    )


def _examples(page: Page, trained: TrainedClassifier, split: str, where: str) -> None:
    """Rows of examples, each image with its saliency beside it."""
    found, members = trained.predictions[split], getattr(trained.keys, split)
    labels, sure = trained.keys.labels(members), found.probability.max(axis=1)
    right = found.probability.argmax(axis=1) == labels
    rows = {
        "Surest right": np.flatnonzero(right)[np.argsort(-sure[right], kind="stable")],
        "Surest wrong": np.flatnonzero(~right)[np.argsort(-sure[~right], kind="stable")],
        "Least sure": np.argsort(sure, kind="stable"),
    }
    for title, order in rows.items():
        if len(order):
            page.heading(f"{title}, {split}")
            keys = [members[i] for i in order[:EXAMPLES]]
            page.images(_with_saliency(trained, keys, found.probability[order[:EXAMPLES]], where), width=SHOWN_PX)
    page.text("Right of each image, in red: what speaks for the predicted class (Grad-CAM).")


def _with_saliency(
    trained: TrainedClassifier, keys: Sequence[str], probability: np.ndarray, where: str
) -> list[tuple[np.ndarray, str]]:
    """Image and saliency side by side, with a caption."""
    names, index = trained.keys.classes, trained.keys.index
    x = torch.from_numpy(next(trained.images.batches(list(keys), len(keys)))).to(where)
    maps = saliency(trained.classifier, x, torch.from_numpy(probability.argmax(axis=1)).to(where))
    panels = []
    for key, one, chances in zip(keys, maps, probability, strict=True):
        picture = cv2.resize(to_rgb8(trained.images.image(key)), (SHOWN_PX, SHOWN_PX), interpolation=cv2.INTER_NEAREST)
        heat = cv2.resize(one, (SHOWN_PX, SHOWN_PX), interpolation=cv2.INTER_LINEAR)[..., None]
        red = picture * (1 - 0.6 * heat) + 0.6 * heat * np.array([255, 0, 0])
        text = f"{key}: {names[chances.argmax()]} {chances.max():.3f}; true {names[index[key]]}"
        panels.append((np.hstack([picture, np.rint(red).astype(np.uint8)]), text))
    return panels
