"""How well a segmentor does on a set without labels, and which of two does better."""

from dataclasses import dataclass

import numpy as np

from shared.edges import edge_score, gradient
from shared.metrics import dice_masks

MARGIN = 1.02
"""Times as high as the incumbent's the candidate's edge score must be. What a set's own noise moves is below it."""
DRIFT = 1.5
"""Factor of the foreground's area, against the incumbent's, from which on a change counts as drift."""


@dataclass(frozen=True)
class Judgement:
    """What is known of a segmentor on some images."""

    edge: float
    """Median edge score: how much steeper the image is on the masks' borders than around them."""
    area: float
    """Share of foreground, mean over images."""
    dice: float | None
    """Mean Dice with the labels; None where none are to be looked at."""


def judge(masks: list[np.ndarray], planes: list[np.ndarray], truths: list[np.ndarray] | None) -> Judgement:
    """Masks (H, W) uint8 {0, 1} of a segmentor, grey planes (H, W) float32, and label images (H, W) or None."""
    scores = [edge_score(mask, gradient(plane)) for mask, plane in zip(masks, planes, strict=True)]
    known = [score for score in scores if score is not None]
    dice = None
    if truths is not None:
        dice = float(np.mean([dice_masks(mask, truth) for mask, truth in zip(masks, truths, strict=True)]))
    edge = float(np.median(known)) if known else 0.0
    return Judgement(edge, float(np.mean([mask.mean() for mask in masks])), dice)


def better(candidate: Judgement, incumbent: Judgement) -> bool:
    """Whether the candidate is to be handed on. By the labels where there are any, else by edges and area."""
    if candidate.dice is not None and incumbent.dice is not None:
        return candidate.dice >= incumbent.dice
    return candidate.edge >= MARGIN * incumbent.edge and not drifts(candidate, incumbent)


def drifts(candidate: Judgement, incumbent: Judgement) -> bool:
    """Whether the foreground grew or shrank so much that something else is being learned."""
    low, high = sorted((candidate.area, incumbent.area))
    return high > DRIFT * max(low, 1e-9)
