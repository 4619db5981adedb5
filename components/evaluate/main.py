"""Predict labelled images, or read their predictions, and compare with the truth."""

from collections.abc import Callable

from components.evaluate.box_scores import score_boxes
from components.evaluate.class_scores import score_classes
from components.evaluate.component import Evaluate
from components.evaluate.mask_scores import score_masks
from components.evaluate.score_files import merge_rows, write_scores
from components.evaluate.scored_part import ScoredPart
from components.evaluate.subject import LabelType, Subject, open_subject
from shared.artifacts.image_set import ImageReader
from shared.artifacts.label_set import LabelReader
from shared.reporting.page import Page
from shared.stage.declaration import Result
from shared.system.errors import UserError

Score = Callable[[Evaluate, Subject, ImageReader, LabelReader], ScoredPart | None]
SCORES: dict[LabelType, Score] = {"classes": score_classes, "masks": score_masks, "boxes": score_boxes}
"""What scores each kind of labels, in the order of the page; the first part that there is has the confusion matrix."""


def run(stage: Evaluate) -> Result:
    """Score all that the truth and the model, or the predictions, hold alike."""
    images, truth = ImageReader(stage.images), LabelReader(stage.truth)
    subject = open_subject(stage, truth)
    if subject.problem:
        return _skip(stage, subject.problem)
    parts = [SCORES[kind](stage, subject, images, truth) for kind in SCORES if kind in subject.scored_by]
    scored = [part for part in parts if part is not None]
    if not scored:
        raise UserError(f"--split {stage.split}: it has no labelled image to score; give another, or auto")
    write_scores(stage.scores, scored)
    metrics = {name: value for part in scored for name, value in part.metrics.items()}
    metrics |= {"images": float(len(merge_rows(scored)))}
    return Result(
        metrics=metrics | ({"scored_on_training_labels": 1.0} if any(part.learned_from for part in scored) else {}),
        classification=scored[0].classification,
        page=_page(scored),
        remark=" ".join(dict.fromkeys(part.remark for part in scored if part.remark)),
    )


def _page(parts: list[ScoredPart]) -> Page:
    page = Page("evaluate")
    for part in parts:
        if len(parts) > 1:
            page.heading(part.title)
        part.show(page)
    return page


def _skip(stage: Evaluate, reason: str) -> Result:
    write_scores(stage.scores, [])
    page = Page("evaluate")
    page.text(f"Skipped: {reason}.")
    return Result(skipped=reason, page=page)
