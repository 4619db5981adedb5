"""Decide how long and how fast to train a segmentor."""

from dataclasses import dataclass

from components.train_segmentor.component import TrainSegmentor

REDUCTION = 0.5
"""Factor on learning rate and steps where a segmentor is trained further, and on steps alone where labels are noisy:
with more steps the network learns the errors."""
TARGET_STEPS = {"flow": 1.5, "distance_flow": 1.5}
"""Target -> factor on the steps, where it is not 1 (RESULTS.md, "Instances")."""
MAX_KINDS = 4.0
"""Number of kinds of images up to which each gets steps of its own; it bounds the time."""


@dataclass(frozen=True)
class Plan:
    """The length and speed of a training."""

    steps: int
    """Optimiser steps."""
    rate: float
    """Peak learning rate."""
    drop_fraction: float = 0.0
    """Share of a step's pixels with confidence, those of the largest loss, whose foreground is not learned."""


def plan_training(stage: TrainSegmentor, target: str, *, is_new: bool, kinds: float) -> Plan:
    """Plan the training of a new segmentor, or one that is trained further, on a set of `kinds` kinds of images."""
    steps = stage.steps * min(kinds, MAX_KINDS) * TARGET_STEPS.get(target, 1.0)
    reduced = max(1, round(REDUCTION * steps))
    if not is_new:
        return Plan(reduced, REDUCTION * stage.learning_rate)
    if stage.drop_fraction:
        return Plan(reduced, stage.learning_rate, stage.drop_fraction)
    return Plan(round(steps), stage.learning_rate)
