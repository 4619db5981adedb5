"""How well a segmentor does on a set without labels, and which of two does better."""

from dataclasses import dataclass, replace

import numpy as np

from shared.imaging.gradients import edge_score, gradient
from shared.instances.postprocess import Segmentation
from shared.metrics.pixels import dice_masks
from shared.metrics.tally import Tally, tally

MARGIN = 1.01
"""Times as high as the incumbent's the candidate's edge score must be. The same training, rounded otherwise, moves it
by 0.3 %; the second round on phase contrast by 1.7 %, and Dice by a point and a half."""
FOLLOWING = 1.1
"""The same between rounds where the first masks followed the edges already. There the edge score rises with or without
gain: a round by 4 % on tissue, where Dice stood, by 7 % on cytology, where it fell from .73 to .70 in two rounds."""
DRIFT = 1.5
"""Factor of the foreground's area, against the incumbent's, from which on a change counts as drift."""

NOTHING = 1e-3
"""Share of foreground below which an incumbent finds nothing that could be compared with."""


@dataclass(frozen=True)
class Assessment:
    """What is known of a segmentor on some images."""

    edge: float
    """Median edge score: how much steeper the image is on the masks' borders than around them."""
    area: float
    """Share of foreground, mean over images."""
    dice: float | None = None
    """Mean Dice with the labels; None where none are to be looked at."""
    f1: float | None = None
    """F1 of the instances at IoU 0.5, pooled; None where the labels hold none or are not to be looked at."""


def assess(masks: list[np.ndarray], planes: list[np.ndarray]) -> Assessment:
    """Without labels: masks (H, W) uint8 {0, 1} of a segmentor, grey planes (H, W) float32."""
    scores = [edge_score(mask, gradient(plane)) for mask, plane in zip(masks, planes, strict=True)]
    known = [score for score in scores if score is not None]
    edge = float(np.median(known)) if known else 0.0
    return Assessment(edge, float(np.mean([mask.mean() for mask in masks])))


def with_labels(assessment: Assessment, found: list[Segmentation], truths: list[np.ndarray]) -> Assessment:
    """The same, measured against label images (H, W); instances only where these hold more than one object."""
    dice = float(np.mean([dice_masks(one.mask, truth) for one, truth in zip(found, truths, strict=True)]))
    if max(int(truth.max(initial=0)) for truth in truths) < 2:
        return replace(assessment, dice=dice)
    total = sum((tally(truth, one.labels) for one, truth in zip(found, truths, strict=True)), Tally())
    return replace(assessment, dice=dice, f1=total.metrics()["f1"])


def better(candidate: Assessment, incumbent: Assessment, margin: float = MARGIN) -> bool:
    """Whether the candidate is to be handed on. By the labels where there are any, else by edges and area."""
    if candidate.dice is not None and incumbent.dice is not None:
        return keeps_up(candidate, incumbent)
    return candidate.edge >= margin * incumbent.edge and not drifts(candidate.area, incumbent.area)


def keeps_up(one: Assessment, other: Assessment) -> bool:
    """Whether one is no worse than the other: as `better`, without a margin."""
    if one.dice is not None and other.dice is not None:
        return one.dice + (one.f1 or 0) >= other.dice + (other.f1 or 0)
    return one.edge >= other.edge and not drifts(one.area, other.area)


def strays(candidate: Assessment, incumbent: Assessment, labelled: Assessment, labelled_before: Assessment) -> bool:
    """Whether the foreground drifts where nobody drew, and by more than the labels call for.

    candidate, incumbent: on images of which no label was learned from; drawn, labelled_before: theirs on those of which
    one was. An incumbent that missed half of what a person drew may well miss half of the rest.
    """
    if labelled_before.area < NOTHING:
        return False
    called_for = incumbent.area * labelled.area / labelled_before.area
    return drifts(candidate.area, incumbent.area) and drifts(candidate.area, called_for)


def drifts(area: float, before: float) -> bool:
    """Whether the share of foreground grew or shrank so much that something else is being learned."""
    low, high = sorted((area, before))
    return high > DRIFT * max(low, 1e-9)
