"""Threshold by the local means of foreground and background: Chan & Vese 2001, Lankton & Tannenbaum 2008."""

import numpy as np

from shared.imaging.filters import count_transitions, local_means, window_sigma

UNDECIDED_PROBABILITY = 0.4
"""Probability where an image shows no two classes: background, with low confidence."""
_STEEPNESS = 6.0
"""Logit between the two class means: they get probabilities near 0.05 and 0.95."""
_ITERATIONS = 6
_MIN_CONTRAST_SHARE = 0.25
"""Lower limit of the local contrast between the classes, as a share of the image's."""


def local_probability(values: np.ndarray, threshold: float, balance: float) -> np.ndarray:
    """Foreground probability (H, W) float32 by the distances of a value to the local means of both classes.

    The piecewise smooth model of Chan & Vese (2001, IEEE TIP 10:266) with means in Gaussian windows (Lankton &
    Tannenbaum 2008, IEEE TIP 17:2029), without its term for the length of the border. It finds dim objects beside
    bright ones, and does not take the haze between close objects for foreground.
    values: (H, W) float32, higher in the foreground; threshold: start of the iteration; balance: position of the border
    between the means of background (0) and foreground (1).
    """
    mask = values > threshold
    if mask.all() or not mask.any():
        return np.full(values.shape, UNDECIDED_PROBABILITY, np.float32)
    low, high = float(values[~mask].mean()), float(values[mask].mean())
    for _ in range(_ITERATIONS):
        sigma = window_sigma(int(mask.sum()), count_transitions(mask))
        outside, inside = local_means(values, mask, low, high, sigma)
        border = outside + balance * (inside - outside)
        mask = values > border
    return sigmoid((values - border) / np.maximum(inside - outside, _MIN_CONTRAST_SHARE * (high - low)))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Logistic function of `_STEEPNESS` times x: float32; x = -0.5 and 0.5 become 0.05 and 0.95."""
    return (1 / (1 + np.exp(-_STEEPNESS * x.astype(np.float32)))).astype(np.float32)
