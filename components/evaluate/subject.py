"""Tell what is scored, a model or predictions, by which kinds of labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from components.evaluate.component import Evaluate
from shared.artifacts.label_set import LabelReader
from shared.models.config import ClassifierConfig, DetectorConfig, SegmentorConfig
from shared.models.files import is_absent, load_config
from shared.system.errors import UserError

LabelType = Literal["masks", "boxes", "classes"]
_OF_MODEL: dict[str, LabelType] = {"segmentor": "masks", "detector": "boxes", "classifier": "classes"}
"""Kind of model -> labels that it predicts."""
_NEEDED = {"masks": "a label image", "boxes": "boxes", "classes": "a class"}


@dataclass(frozen=True)
class Subject:
    """What is scored."""

    model: Path | None
    """Model that predicts the images; None where predictions are given."""
    predictions: LabelReader | None
    """Predictions to score; None where a model is given."""
    scored_by: tuple[LabelType, ...] = ()
    """Labels that it is scored by: those that both it and the truth hold."""
    problem: str = ""
    """Why it cannot be scored; empty where it can."""


def open_subject(stage: Evaluate, truth: LabelReader) -> Subject:
    """Open what the stage scores. Raises ArtifactError where it is a model of a kind that predicts no labels."""
    if (stage.model is None) == (stage.predictions is None):
        raise UserError("--model, --predictions: give exactly one of them; it is what is scored")
    if stage.predictions is not None:
        return _of_predictions(LabelReader(stage.predictions), truth)
    assert stage.model is not None
    if is_absent(stage.model):
        return Subject(
            stage.model, None, problem="there is no model; the stage that trains it had nothing to learn from"
        )
    config: Any = load_config(stage.model, SegmentorConfig, DetectorConfig, ClassifierConfig)
    kind = _OF_MODEL[config.kind]
    if kind in _kinds_of_truth(truth):
        return Subject(stage.model, None, (kind,))
    problem = f"no image has {_NEEDED[kind]} to score against; the truth holds {truth.contents()}"
    return Subject(stage.model, None, problem=problem)


def _of_predictions(predictions: LabelReader, truth: LabelReader) -> Subject:
    possible, found = _kinds_of_truth(truth), predictions.contents()
    if not possible:
        reason = f"no image has a label image to score against; the truth holds {truth.contents()}"
        return Subject(None, predictions, problem=reason)
    held: dict[LabelType, int] = {"masks": found.label_images, "boxes": found.annotations, "classes": found.classes}
    if held["masks"] and "masks" not in possible:
        held["boxes"] = held["masks"]
    scored = tuple(kind for kind in possible if held[kind])
    if scored:
        return Subject(None, predictions, scored)
    return Subject(None, predictions, problem=f"the predictions hold {found}, the truth {truth.contents()}")


def _kinds_of_truth(truth: LabelReader) -> list[LabelType]:
    """Kinds of labels that the truth can score; instances have boxes as well."""
    held = truth.contents()
    instances = any(entry.kind == "instances" for entry in truth.entries.values())
    found: dict[LabelType, bool] = {
        "masks": bool(held.label_images),
        "boxes": bool(held.annotations) or instances,
        "classes": bool(held.classes),
    }
    return [kind for kind, there in found.items() if there]
