"""How well a segmentor does on a set without labels, and which of two does better."""

from dataclasses import dataclass, replace

import numpy as np

from shared.edges import edge_score, gradient
from shared.instances import SADDLE, split_touching
from shared.metrics import Tally, dice_masks, tally

MARGIN = 1.02
"""Times as high as the incumbent's the candidate's edge score must be. What a set's own noise moves is below it."""
SADDLES = (0.85, 0.9, 0.95, 0.8, 0.7, 0.6, 0.5, 0.4)
"""What is tried; the first of equals is taken."""
DRIFT = 1.5
"""Factor of the foreground's area, against the incumbent's, from which on a change counts as drift."""


@dataclass(frozen=True)
class Judgement:
    """What is known of a segmentor on some images."""

    edge: float
    """Median edge score: how much steeper the image is on the masks' borders than around them."""
    area: float
    """Share of foreground, mean over images."""
    dice: float | None = None
    """Mean Dice with the labels; None where none are to be looked at."""
    f1: float | None = None
    """F1 of the instances at IoU 0.5, pooled; None where the labels hold none or are not to be looked at."""
    saddle: float = SADDLE
    """What that F1 was reached with: see `shared.instances.split_touching`."""


def judge(masks: list[np.ndarray], planes: list[np.ndarray]) -> Judgement:
    """Without labels: masks (H, W) uint8 {0, 1} of a segmentor, grey planes (H, W) float32."""
    scores = [edge_score(mask, gradient(plane)) for mask, plane in zip(masks, planes, strict=True)]
    known = [score for score in scores if score is not None]
    edge = float(np.median(known)) if known else 0.0
    return Judgement(edge, float(np.mean([mask.mean() for mask in masks])))


def with_labels(
    judgement: Judgement, masks: list[np.ndarray], depths: list[np.ndarray | None], truths: list[np.ndarray]
) -> Judgement:
    """The same, measured against label images (H, W); depths: (H, W) of `shared.instances.instance_depth`, or None.

    Label images that hold more than one object teach where to part touching ones: the saddle with the highest F1.
    """
    dice = float(np.mean([dice_masks(mask, truth) for mask, truth in zip(masks, truths, strict=True)]))
    if max(int(truth.max(initial=0)) for truth in truths) < 2:
        return replace(judgement, dice=dice)
    cases = list(zip(masks, depths, truths, strict=True))
    scores = {}
    for saddle in SADDLES:
        tallies = [tally(truth, split_touching(mask, saddle=saddle, depth=depth)) for mask, depth, truth in cases]
        scores[saddle] = sum(tallies, Tally()).metrics()["f1"]
    saddle = max(scores, key=lambda value: scores[value])
    return replace(judgement, dice=dice, f1=scores[saddle], saddle=saddle)


def better(candidate: Judgement, incumbent: Judgement) -> bool:
    """Whether the candidate is to be handed on. By the labels where there are any, else by edges and area."""
    if candidate.dice is not None and incumbent.dice is not None:
        return candidate.dice + (candidate.f1 or 0) >= incumbent.dice + (incumbent.f1 or 0)
    return candidate.edge >= MARGIN * incumbent.edge and not drifts(candidate, incumbent)


def drifts(candidate: Judgement, incumbent: Judgement) -> bool:
    """Whether the foreground grew or shrank so much that something else is being learned."""
    low, high = sorted((candidate.area, incumbent.area))
    return high > DRIFT * max(low, 1e-9)
