"""Is the new segmentor better than the best one so far? Only the better one goes on."""

from pathlib import Path

import numpy as np

from components.gate.component import Gate
from components.gate.judge import Judgement, better, drifts, judge, strays, with_labels
from components.gate.soup import write_average
from shared.artifacts import copy_payload
from shared.cells import Found, find
from shared.devices import device
from shared.errors import UserError
from shared.images import ImageReader
from shared.keys import spread
from shared.labels import LabelReader, learned_labels
from shared.log import log
from shared.models.files import read_config
from shared.models.segmentor import for_prediction, load_segmentor
from shared.overlays import outline, to_rgb8
from shared.progress import track
from shared.proposals import grey
from shared.report import Page
from shared.stage import Result
from shared.tiling import middle, predict_maps

PANELS = 3
LOOK = 1024
"""px; of a larger image its middle is looked at."""
LEARNED_FROM = "this loop learned from their labels as well, so the comparison favours the newer segmentor"
STRAYED = "on images that nobody drew its cells cover so much more or less than before that it is not trusted"


def run(stage: Gate) -> Result:
    """Judge both, hand the better one on."""
    if stage.skip:
        copy_payload(stage.incumbent, stage.best)
        return Result(values={"best_round": stage.incumbent_round, "done": True}, skipped="the EM loop is over")
    reader, truth = ImageReader(stage.images), LabelReader(stage.truth)
    keys = _keys(stage, reader, truth)
    cuts = [middle(reader.read(key), LOOK) for key in keys]
    truths = [middle(truth.mask(key), LOOK) for key in keys] if stage.use_labels else None
    new, new_masks = _judged(stage, stage.candidate, cuts, truths, "candidate")
    old: Judgement | None = None
    old_masks = None
    if read_config(stage.incumbent)["kind"] == "segmentor":
        old, old_masks = _judged(stage, stage.incumbent, cuts, truths, "incumbent")
    accepted = old is None or better(new, old)
    strayed = accepted and old is not None and _strays_elsewhere(stage, reader, truth, new, old)
    accepted = accepted and not strayed
    if not accepted:
        kept = f"round {stage.incumbent_round}" if stage.incumbent_round >= 0 else "the model the loop started from"
        log.warning("round %d is not better than %s", stage.number, kept)
    taken = accepted or stage.keep_worse
    same_loop = old is not None and stage.incumbent_round >= 0
    averaging = accepted and same_loop and stage.average < 1
    averaged = averaging and write_average(stage.candidate, stage.incumbent, stage.average, stage.best)
    if not averaged:
        copy_payload(stage.candidate if taken else stage.incumbent, stage.best)
    best_round = stage.number if taken else stage.incumbent_round
    done = stage.converged or stage.number - best_round >= stage.patience
    done = done or (old is not None and not stage.use_labels and drifts(new, old))
    metrics = {"accepted": float(accepted), "edge_score": new.edge, "foreground_share": new.area}
    metrics["averaged"] = float(averaged)
    metrics |= {} if new.dice is None else {"dice": new.dice}
    metrics |= {} if new.f1 is None else {"f1": new.f1}
    values: dict[str, float | int | bool | str] = {
        "best_round": best_round,
        "done": done,
    }
    page = _page(stage, accepted, new, old, (cuts, new_masks, old_masks))
    if stage.use_labels and old is not None:
        log.info("judged on %d images: %s", len(keys), LEARNED_FROM)
        page.text(f"Judged on {len(keys)} images: {LEARNED_FROM}.")
    if strayed:
        page.text(f"By the labels it is better, but {STRAYED}.")
    if averaged:
        page.text(
            f"In what is handed on, {stage.average:.0%} of the weights are this round's, the rest the earlier ones'."
        )
    return Result(metrics=metrics, values=values, page=page)


def _keys(stage: Gate, reader: ImageReader, truth: LabelReader) -> list[str]:
    """What is judged on: the labelled images that the loop may look at, else some of those it learns from."""
    keys = reader.keys("train")
    if stage.use_labels:
        keys = learned_labels(truth, set(keys), stage.use_labels)
    if not keys:
        wanted = "has labels and is of the split train" if stage.use_labels else "is of the split train"
        raise UserError(f"--images: none of the {len(reader)} images {wanted}; add some, or set --use_labels 0")
    return spread(keys, stage.most_images)


def _strays_elsewhere(
    stage: Gate, reader: ImageReader, truth: LabelReader, drawn: Judgement, drawn_before: Judgement
) -> bool:
    """Whether a candidate that the labels prefer to a model of the user's strays on images that nobody drew.

    These have no say on which is better. But a segmentor that was trained on a few images may be right on them alone.
    """
    if not stage.use_labels or stage.incumbent_round >= 0:
        return False
    train = reader.keys("train")
    learned = set(learned_labels(truth, set(train), stage.use_labels))
    keys = spread([key for key in train if key not in learned], stage.most_images)
    if not keys:
        return False
    cuts = [middle(reader.read(key), LOOK) for key in keys]
    new, _ = _judged(stage, stage.candidate, cuts, None, "candidate, where nobody drew")
    old, _ = _judged(stage, stage.incumbent, cuts, None, "incumbent, where nobody drew")
    if strays(new, old, drawn, drawn_before):
        log.warning("%s: %.1f %% instead of %.1f %%", STRAYED, 100 * new.area, 100 * old.area)
        return True
    return False


def _judged(
    stage: Gate, model: Path, images: list[np.ndarray], truths: list[np.ndarray] | None, what: str
) -> tuple[Judgement, list[np.ndarray]]:
    """What is known of a segmentor, and its foreground masks (H, W) uint8 {0, 1}."""
    segmentor, config = load_segmentor(model)
    where = device()
    segmentor = for_prediction(segmentor, where)
    found: list[Found] = []
    for image in track(images, f"gate: {what}", len(images)):
        maps = predict_maps(segmentor, config, image, tile=stage.tile, batch_size=stage.batch_size, device=where)
        # without labels borders count, and where they were moved to edges both sides' are equally good
        found.append(find(maps, image, sharpen="none" if truths is None else config.sharpen))
    masks = [one.mask for one in found]
    judgement = judge(masks, [grey(image) for image in images])
    return (judgement if truths is None else with_labels(judgement, found, truths, config.saddle)), masks


def _page(
    stage: Gate,
    accepted: bool,
    new: Judgement,
    old: Judgement | None,
    shown: tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray] | None],
) -> Page:
    page = Page("gate")
    if old is None:
        page.text("The first segmentor: there is nothing to compare it with.")
    elif accepted:
        page.text(f"Round {stage.number} is better than what was best before, and is handed on.")
    else:
        page.text(
            f"Round {stage.number} is not better than what was best before"
            + (", but handed on, as was asked for." if stage.keep_worse else "; the earlier one is handed on.")
        )
    header = ["", "edge score", "foreground, %", "Dice with the labels looked at", "F1 of instances"]
    judged = [("this round", new)] + ([("best before", old)] if old else [])
    page.table(header, [[name, j.edge, 100 * j.area, _or_blank(j.dice), _or_blank(j.f1)] for name, j in judged])
    cuts, new_masks, old_masks = shown
    for i in range(min(PANELS, len(cuts))):
        rgb = to_rgb8(cuts[i])
        row = [(rgb, "input"), (outline(rgb, new_masks[i], width=2), "this round")]
        if old_masks is not None:
            row.append((outline(rgb, old_masks[i], width=2), "best before"))
        page.images(row)
    return page


def _or_blank(value: float | None) -> float | str:
    return "" if value is None else value
