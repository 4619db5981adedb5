"""The history of a training: (step, loss) of every step, in numbers for people."""

import numpy as np

from shared.training.checkpoint import History

POINTS = 300
"""Points of a plotted curve, about."""


def first_and_last_loss(history: History) -> dict[str, float]:
    """Mean loss over the first and the last tenth of the steps."""
    losses = [loss for _, loss in history]
    tail = max(1, len(losses) // 10)
    return {"first_loss": float(np.mean(losses[:tail])), "loss": float(np.mean(losses[-tail:]))}


def thinned(history: History) -> History:
    """Evenly spaced points of the history, for a plot."""
    return history[:: max(1, len(history) // POINTS)]
