"""Show the scores of classes on the page of `evaluate`."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from shared.artifacts.image_set import ImageReader
from shared.imaging.overlays import thumbnail, to_rgb8
from shared.metrics.classes import reliability
from shared.reporting.page import Page

_EXAMPLES = 6
"""Images in each row of examples."""
_SIDE = 180
"""px of an example on the page."""
_MAX_CLASSES = 30
"""Classes up to which the confusion matrix and the ROC curves are shown."""


@dataclass(frozen=True)
class ClassResults:
    """What is known of n images and K classes."""

    names: list[str]
    probability: np.ndarray
    """(n, K)"""
    true: np.ndarray
    """(n,) index of the true class."""
    metrics: dict[str, float]
    confusion: np.ndarray
    """(K, K) images, a row for each true class."""
    curves: dict[str, list[tuple[float, float, float]]]
    """Class -> ROC curve."""
    rows: list[dict[str, Any]]
    """Lines of `scores.csv`."""
    known: bool
    """Whether probabilities are known."""
    remark: str


def show_classes(page: Page, results: ClassResults, images: ImageReader) -> None:
    """Show metrics, confusion matrix, curves and examples."""
    page.text(f"{len(results.true)} images of {len(results.names)} classes. {results.remark}")
    page.table(list(results.metrics), [list(results.metrics.values())])
    page.text(
        "auroc and average_precision are of the second class; of more than two classes, the mean of each against the "
        "rest. ece is the expected calibration error."
    )
    _outcomes(page, results)
    _confusion(page, results)
    if results.known:
        _curves(page, results)
    _examples(page, results, images)


def _outcomes(page: Page, results: ClassResults) -> None:
    if "answered" not in results.metrics:
        return
    page.heading("Outcomes", 3)
    found = sorted({row.get("outcome", "") for row in results.rows})
    rows = [
        [
            name,
            *(
                sum(r["true_class"] == name and r.get("outcome", "") == outcome for r in results.rows)
                for outcome in found
            ),
        ]
        for name in results.names
    ]
    page.table(["true class", *(outcome or "none" for outcome in found)], rows)
    page.text("answered: share of the images that are not abstained from; answered_error: share of them that is wrong.")


def _confusion(page: Page, results: ClassResults) -> None:
    counts = results.confusion.sum(axis=1), results.confusion.sum(axis=0)
    right = np.diag(results.confusion)
    if len(results.names) <= _MAX_CLASSES:
        page.heading("Confusion matrix", 3)
        matrix = zip(results.names, results.confusion.tolist(), strict=True)
        page.table(["", *(f"predicted {name}" for name in results.names)], [[f"true {n}", *row] for n, row in matrix])
    page.heading("By class", 3)
    rows = [
        [name, int(true), float(hits / true) if true else "", float(hits / found) if found else ""]
        for name, true, found, hits in zip(results.names, *counts, right, strict=True)
    ]
    page.table(["class", "images", "recall", "precision"], rows)


def _curves(page: Page, results: ClassResults) -> None:
    parts = reliability(results.probability, results.true)
    lines = {"model": [(confidence, accuracy) for confidence, accuracy, _ in parts], "ideal": [(0.0, 0.0), (1.0, 1.0)]}
    page.heading("Reliability and ROC", 3)
    page.plot("Reliability", lines, x="confidence", y="accuracy")
    if results.curves and len(results.curves) <= _MAX_CLASSES:
        roc = {name: [(false, true) for false, true, _ in curve] for name, curve in results.curves.items()}
        page.plot("ROC", roc, x="false positive rate", y="true positive rate")
    page.table(["confidence", "accuracy", "images"], parts)


def _examples(page: Page, results: ClassResults, images: ImageReader) -> None:
    best = results.probability.max(axis=1)
    right = results.probability.argmax(axis=1) == results.true
    shown = {
        "Surest wrong": np.flatnonzero(~right)[np.argsort(-best[~right], kind="stable")],
        "Least sure": np.argsort(best, kind="stable") if results.known else np.empty(0, int),
        "Surest right": np.flatnonzero(right)[np.argsort(-best[right], kind="stable")],
    }
    for title, order in shown.items():
        if len(order):
            page.heading(title, 3)
            page.images([_example(images, results.rows[i]) for i in order[:_EXAMPLES]], width=_SIDE)


def _example(images: ImageReader, row: dict[str, Any]) -> tuple[np.ndarray, str]:
    found = f"{row['class']} {row['score']:.3f}" if "score" in row else row["class"]
    text = f"{PurePosixPath(row['source']).name}: {found}; true {row['true_class']}"
    if "outcome" in row:
        text += f"; {row['outcome']}"
    return thumbnail(to_rgb8(images.read(row["image"])), 2 * _SIDE), text
