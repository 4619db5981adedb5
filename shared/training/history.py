"""The history of a training: (step, loss) of every step."""

import numpy as np

History = list[tuple[int, float]]
"""(step, loss)"""
PLOT_POINTS = 300
"""Approximate number of points of a plotted curve."""


def first_and_last_loss(history: History) -> dict[str, float]:
    """Mean loss over the first and the last tenth of the steps."""
    losses = [loss for _, loss in history]
    tail = max(1, len(losses) // 10)
    return {"first_loss": float(np.mean(losses[:tail])), "loss": float(np.mean(losses[-tail:]))}


def plot_points(history: History) -> History:
    """Evenly spaced points of the history."""
    return history[:: max(1, len(history) // PLOT_POINTS)]
