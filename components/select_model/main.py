"""Compare the new segmentor with the best one so far, and pass on the better one or their average."""

import tempfile
from pathlib import Path

from components.select_model.component import SelectModel
from components.select_model.criteria import Assessment, is_as_good
from components.select_model.decision import Comparison
from components.select_model.evaluation_set import AssessedModel, EvaluationSet
from components.select_model.page import make_page
from components.select_model.remark import LABELS_ARE_LEARNED, make_remark
from components.select_model.weight_average import write_average
from shared.artifacts.manifest import copy_payload
from shared.models.config import EncoderConfig, SegmentorConfig
from shared.models.files import load_config
from shared.stage.declaration import Result
from shared.system.log import log

_CANDIDATE, _INCUMBENT, _AVERAGE = "candidate", "incumbent", "average"
"""What the page and progress messages call the models."""


def run(stage: SelectModel) -> Result:
    """Assess both models, select one, and decide whether the loop ends."""
    if stage.skip:
        return _skip(stage)
    evaluation_set = EvaluationSet.of(stage)
    assessed = {_CANDIDATE: evaluation_set.assess(stage.candidate, _CANDIDATE)}
    if isinstance(load_config(stage.incumbent, EncoderConfig, SegmentorConfig), SegmentorConfig):
        assessed[_INCUMBENT] = evaluation_set.assess(stage.incumbent, _INCUMBENT)
    new = assessed[_CANDIDATE].assessment
    comparison = Comparison.of(stage, new, assessed[_INCUMBENT].assessment if _INCUMBENT in assessed else None)
    outcome = comparison.outcome()
    accepted = outcome in ("first", "first, drift", "better")
    selected = accepted or stage.always_accept
    averaged = outcome == "better" and _write_average(stage, evaluation_set, assessed)
    if not averaged:
        copy_payload(stage.candidate if selected else stage.incumbent, stage.best)
    best_round = stage.round_number if selected else stage.incumbent_round
    stop_reason = comparison.stop_reason(accepted, best_round)
    summary = make_remark(comparison, outcome, stop_reason, averaged=averaged)
    (log.info if outcome in ("first", "better") else log.warning)("%s", summary)
    return Result(
        metrics=_metrics(new, accepted=accepted, averaged=averaged),
        values={
            "best_round": best_round,
            "done": bool(stop_reason),
            "stop_reason": stop_reason,
            "initial_area_out": comparison.initial_area,
        },
        page=make_page(evaluation_set, assessed, [summary, *_notes(stage, assessed, averaged)]),
        remark=summary,
    )


def _skip(stage: SelectModel) -> Result:
    copy_payload(stage.incumbent, stage.best)
    values: dict[str, float | int | bool | str] = {
        "best_round": stage.incumbent_round,
        "done": True,
        "stop_reason": "",
        "initial_area_out": stage.initial_area,
    }
    return Result(values=values, skipped="the EM loop has ended")


def _write_average(stage: SelectModel, evaluation_set: EvaluationSet, assessed: dict[str, AssessedModel]) -> bool:
    """Write the average of both models to `best`, unless it is worse than the incumbent. Adds it to `assessed`."""
    if stage.incumbent_round < 0 or stage.candidate_weight == 1:
        return False
    with tempfile.TemporaryDirectory(prefix="cytoloom-") as temporary:
        average = Path(temporary)
        if not write_average(stage.candidate, stage.incumbent, stage.candidate_weight, average):
            return False
        assessed[_AVERAGE] = evaluation_set.assess(average, _AVERAGE)
        if not is_as_good(assessed[_AVERAGE].assessment, assessed[_INCUMBENT].assessment):
            return False
        copy_payload(average, stage.best)
    return True


def _metrics(new: Assessment, *, accepted: bool, averaged: bool) -> dict[str, float]:
    metrics = {
        "accepted": float(accepted),
        "averaged": float(averaged),
        "edge_score": new.edge_score,
        "foreground_share": new.foreground_share,
    }
    return metrics | {name: value for name, value in (("dice", new.dice), ("f1", new.f1)) if value is not None}


def _notes(stage: SelectModel, assessed: dict[str, AssessedModel], averaged: bool) -> list[str]:
    """Sentences for the page."""
    notes = [LABELS_ARE_LEARNED] if stage.use_labels and _INCUMBENT in assessed else []
    if _AVERAGE in assessed and not averaged:
        notes.append("The average with the earlier weights is worse than these, so the candidate is passed on alone.")
    return notes
