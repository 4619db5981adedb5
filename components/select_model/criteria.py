"""Assess a segmentor's masks with and without labels, and compare two assessments."""

from dataclasses import dataclass, replace

import numpy as np

from shared.imaging.gradients import edge_score, gradient
from shared.instances.postprocess import Segmentation
from shared.metrics.pixels import dice_masks
from shared.metrics.tally import Tally, tally

MIN_EDGE_GAIN = 1.01
"""Ratio of the candidate's to the incumbent's edge score from which on it is better (RESULTS.md, "Constants")."""
MIN_EDGE_GAIN_REFINED = 1.1
"""The same between rounds whose first masks were refined to the local means (RESULTS.md, "Constants")."""
MAX_AREA_CHANGE = 1.5
"""Factor between two foreground shares above which the change counts as drift."""
MIN_FOREGROUND_SHARE = 1e-3
"""Foreground share below which a segmentor finds too little to be a reference."""


@dataclass(frozen=True)
class Assessment:
    """Criteria of a segmentor on a set of images."""

    edge_score: float
    """Median edge score: how much steeper the image is on the masks' borders than around them."""
    foreground_share: float
    """Foreground share in [0, 1], mean over the images."""
    dice: float | None = None
    """Mean Dice with the labels; None without labels."""
    f1: float | None = None
    """F1 of the instances at IoU 0.5, pooled; None without labels that tell instances apart."""


def assess_masks(masks: list[np.ndarray], planes: list[np.ndarray]) -> Assessment:
    """Assess masks (H, W) uint8 {0, 1} without labels, on grey planes (H, W) float32."""
    scores = [edge_score(mask, gradient(plane)) for mask, plane in zip(masks, planes, strict=True)]
    known = [score for score in scores if score is not None]
    median = float(np.median(known)) if known else 0.0
    return Assessment(median, float(np.mean([mask.mean() for mask in masks])))


def add_label_criteria(assessment: Assessment, found: list[Segmentation], truths: list[np.ndarray]) -> Assessment:
    """Add the agreement with label images (H, W); F1 only where some image has more than one instance."""
    dice = float(np.mean([dice_masks(one.mask, truth) for one, truth in zip(found, truths, strict=True)]))
    if max(int(truth.max(initial=0)) for truth in truths) < 2:
        return replace(assessment, dice=dice)
    total = sum((tally(truth, one.labels) for one, truth in zip(found, truths, strict=True)), Tally())
    return replace(assessment, dice=dice, f1=total.metrics()["f1"])


def is_better(candidate: Assessment, incumbent: Assessment, min_edge_gain: float = MIN_EDGE_GAIN) -> bool:
    """Whether to prefer the candidate: by Dice and F1 where both have labels, else by edge score and foreground."""
    if candidate.dice is not None and incumbent.dice is not None:
        return is_as_good(candidate, incumbent)
    enough = candidate.edge_score >= min_edge_gain * incumbent.edge_score
    return enough and not area_drifts(candidate.foreground_share, incumbent.foreground_share)


def is_as_good(one: Assessment, other: Assessment) -> bool:
    """Whether `one` is no worse than `other`, by the criteria of `is_better` without a minimum gain."""
    if one.dice is not None and other.dice is not None:
        return one.dice + (one.f1 or 0) >= other.dice + (other.f1 or 0)
    return one.edge_score >= other.edge_score and not area_drifts(one.foreground_share, other.foreground_share)


def area_drifts(share: float, reference: float) -> bool:
    """Whether a foreground share, or the background's, differs from the reference by more than MAX_AREA_CHANGE."""
    return any(
        max(pair) > MAX_AREA_CHANGE * max(min(pair), 1e-9) for pair in ((share, reference), (1 - share, 1 - reference))
    )


def area_drifts_unlabelled(
    candidate: float, incumbent: float, candidate_labelled: float, incumbent_labelled: float
) -> bool:
    """Whether the foreground share drifts on unlabelled images by more than on labelled ones.

    All four are foreground shares, the first two on unlabelled images. An incumbent that misses half of the labelled
    foreground may miss half elsewhere, so twice the foreground is no drift then.
    """
    if incumbent_labelled < MIN_FOREGROUND_SHARE:
        return False
    expected = incumbent * candidate_labelled / incumbent_labelled
    return area_drifts(candidate, incumbent) and area_drifts(candidate, expected)
