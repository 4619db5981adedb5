"""Learning rate of each step."""

import math

import torch


def cosine(step: int, steps: int, *, peak: float, warmup: int, floor: float = 0.0) -> float:
    """Learning rate of step 0..steps-1: rises linearly to `peak` over `warmup` steps, then half a cosine to `floor`."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return floor + (peak - floor) * (1 + math.cos(math.pi * done)) / 2


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every group, times the group's `scale` where it has one."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)
