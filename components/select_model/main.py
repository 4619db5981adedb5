"""Is the new segmentor better than the best one so far? Only the better one goes on."""

import tempfile
from pathlib import Path

from components.select_model.component import SelectModel
from components.select_model.criteria import FOLLOWING, MARGIN, NOTHING, better, drifts, keeps_up, strays
from components.select_model.evaluation_set import Assessed, EvaluationSet
from components.select_model.page import make_page
from components.select_model.weight_average import write_average
from shared.artifacts.manifest import copy_payload
from shared.models.config import EncoderConfig, SegmentorConfig
from shared.models.files import load_config
from shared.stage.declaration import Result
from shared.system.log import log

NEW, OLD, BOTH = "this round", "best before", "their average"
LEARNED_FROM = "this loop learned from their labels as well, so the comparison favours the newer segmentor"
STRAYED = "on images that nobody drew its cells cover so much more or less than before that it is not trusted"
TOO_LITTLE = (
    "Its borders follow the edges better by {gain:.1%}, less than the {wanted:.0%} asked for: that much comes about "
    "without any gain."
)
DRIFTED = "its cells cover so much more or less than those of the first segmentor that it is not trusted"


def run(stage: SelectModel) -> Result:
    """Judge both, hand the better one on."""
    values: dict[str, float | int | bool | str]
    if stage.skip:
        copy_payload(stage.incumbent, stage.best)
        values = {
            "best_round": stage.incumbent_round,
            "done": True,
            "stop_reason": "",
            "initial_area_out": stage.initial_area,
        }
        return Result(values=values, skipped="the EM loop is over")
    jury = EvaluationSet.of(stage)
    judged = {NEW: jury(stage.candidate, "candidate")}
    if isinstance(load_config(stage.incumbent, EncoderConfig, SegmentorConfig), SegmentorConfig):
        judged[OLD] = jury(stage.incumbent, "incumbent")
    remarks: list[str] = []
    declining = _declining(stage)
    accepted = _accepted(stage, jury, judged, declining, remarks)
    taken = accepted or stage.always_accept
    averaged = accepted and _averaged(stage, jury, judged, remarks)
    if not averaged:
        copy_payload(stage.candidate if taken else stage.incumbent, stage.best)
    new = judged[NEW].assessment
    best_round = stage.round_number if taken else stage.incumbent_round
    ending = _ending(stage, judged, accepted, declining, best_round)
    values = {
        "best_round": best_round,
        "done": bool(ending),
        "stop_reason": ending,
        "initial_area_out": _initial_area(stage, judged),
    }
    metrics = {"accepted": float(accepted), "edge_score": new.edge, "foreground_share": new.area}
    metrics["averaged"] = float(averaged)
    metrics |= {} if new.dice is None else {"dice": new.dice}
    metrics |= {} if new.f1 is None else {"f1": new.f1}
    return Result(metrics=metrics, values=values, page=make_page(stage, jury, judged, accepted, remarks))


def _accepted(
    stage: SelectModel, jury: EvaluationSet, judged: dict[str, Assessed], declining: bool, remarks: list[str]
) -> bool:
    """Whether the candidate is better than the incumbent, and to be trusted."""
    if OLD not in judged:
        return True
    new, old = judged[NEW].assessment, judged[OLD].assessment
    margin = FOLLOWING if declining else MARGIN
    accepted = better(new, old, margin)
    if not accepted and better(new, old, 1.0) and new.dice is None and new.edge > old.edge:
        remarks.append(TOO_LITTLE.format(gain=new.edge / old.edge - 1, wanted=margin - 1))
    if stage.use_labels:
        log.info("judged on %d images: %s", len(jury.images), LEARNED_FROM)
        remarks.append(f"Assessed on {len(jury.images)} images: {LEARNED_FROM}.")
        if accepted and _strays_elsewhere(stage, judged):
            accepted = False
            remarks.append(f"By the labels it is better, but {STRAYED}.")
    elif accepted and _drifted(stage, judged):
        accepted = False
        log.warning("%s: %.1f %% instead of %.1f %%", DRIFTED, 100 * new.area, 100 * stage.initial_area)
        remarks.append(f"Its borders follow the edges better, but {DRIFTED}.")
    if not accepted:
        kept = f"round {stage.incumbent_round}" if stage.incumbent_round >= 0 else "the model the loop started from"
        log.warning("round %d is not better than %s", stage.round_number, kept)
    return accepted


def _initial_area(stage: SelectModel, judged: dict[str, Assessed]) -> float:
    """Share of foreground of the loop's first segmentor."""
    if stage.round_number > 0 and stage.initial_area > NOTHING:
        return stage.initial_area
    return judged.get(OLD, judged[NEW]).assessment.area


def _declining(stage: SelectModel) -> bool:
    """Whether a later round has to be much better than an earlier one: the first masks followed the edges already."""
    config = load_config(stage.candidate, SegmentorConfig)
    return config.postprocessing.border_refinement == "means" and stage.incumbent_round >= 0 and not stage.use_labels


def _ending(stage: SelectModel, judged: dict[str, Assessed], accepted: bool, declining: bool, best_round: int) -> str:
    """Why the loop ends here; empty where it goes on."""
    if _drifted(stage, judged):
        return "drift"
    if stage.agreement >= stage.stop_agreement and not accepted:
        return "converged"
    return "no better" if stage.round_number - best_round >= (1 if declining else stage.patience) else ""


def _drifted(stage: SelectModel, judged: dict[str, Assessed]) -> bool:
    """Whether the candidate drifts from the incumbent, or, step by step, has from the loop's first segmentor.

    Where there are labels they tell, and nothing counts as drift.
    """
    if OLD not in judged or stage.use_labels:
        return False
    new, old = judged[NEW].assessment, judged[OLD].assessment
    return drifts(new.area, old.area) or (
        stage.round_number > 0 and stage.initial_area > NOTHING and drifts(new.area, stage.initial_area)
    )


def _strays_elsewhere(stage: SelectModel, judged: dict[str, Assessed]) -> bool:
    """Whether a candidate that the labels prefer to a model of the user's strays on images that nobody drew.

    These have no say on which is better. But a segmentor that was trained on a few images may be right on them alone.
    """
    jury = EvaluationSet.elsewhere(stage) if stage.incumbent_round < 0 else None
    if jury is None:
        return False
    new = jury(stage.candidate, "candidate, where nobody drew").assessment
    old = jury(stage.incumbent, "incumbent, where nobody drew").assessment
    if strays(new, old, judged[NEW].assessment, judged[OLD].assessment):
        log.warning("%s: %.1f %% instead of %.1f %%", STRAYED, 100 * new.area, 100 * old.area)
        return True
    return False


def _averaged(stage: SelectModel, jury: EvaluationSet, judged: dict[str, Assessed], remarks: list[str]) -> bool:
    """Write the average of a better round and the rounds before to `best`, unless it falls behind these."""
    if OLD not in judged or stage.incumbent_round < 0 or stage.candidate_weight == 1:
        return False
    with tempfile.TemporaryDirectory(prefix="cytoloom-") as temporary:
        average = Path(temporary)
        if not write_average(stage.candidate, stage.incumbent, stage.candidate_weight, average):
            return False
        judged[BOTH] = jury(average, "average")
        if not keeps_up(judged[BOTH].assessment, judged[OLD].assessment):
            remarks.append("The average of its weights and the earlier ones' is worse than these: it goes on alone.")
            return False
        copy_payload(average, stage.best)
    remarks.append(
        f"In what is handed on, {stage.candidate_weight:.0%} of the weights are this round's, the rest earlier ones'."
    )
    return True
