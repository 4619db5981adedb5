"""Threshold two classes of values: Otsu 1979, IEEE Trans. SMC 9(1)."""

import math

import numpy as np
from pydantic import BaseModel

NORMAL_SEPARABILITY = 2 / math.pi
"""Separability of a normal distribution, which has no classes."""
_BINS = 256


class OtsuThreshold(BaseModel):
    """Threshold between two classes of values."""

    threshold: float
    separability: float
    """Share of the variance that is between the classes, 0 to 1; 0 where all values are equal."""
    mean_difference: float
    """Difference of the class means; above 0."""


def otsu(values: np.ndarray) -> OtsuThreshold:
    """Compute Otsu's threshold of values of any shape, with 256 bins between their 0.1 and 99.9 percentiles."""
    low, high = np.percentile(values, [0.1, 99.9]) if values.size else (0.0, 0.0)
    if not high > low:
        return OtsuThreshold(threshold=float(low), separability=0.0, mean_difference=1.0)
    counts, edges = np.histogram(np.clip(values, low, high), _BINS, (float(low), float(high)))
    centres = (edges[1:] + edges[:-1]) / 2
    weight = np.cumsum(counts) / counts.sum()
    moment = np.cumsum(counts * centres) / counts.sum()
    inner = slice(0, _BINS - 1)  # a threshold at the upper end would leave a class empty
    w, m = weight[inner], moment[inner]
    between = np.divide((moment[-1] * w - m) ** 2, w * (1 - w), out=np.zeros_like(w), where=(w > 0) & (w < 1))
    best = int(between.argmax())
    variance = float((counts * (centres - moment[-1]) ** 2).sum() / counts.sum())
    difference = (moment[-1] - m[best]) / (1 - w[best]) - m[best] / w[best]
    return OtsuThreshold(
        threshold=float(edges[best + 1]),
        separability=float(between[best] / variance),
        mean_difference=float(max(difference, 1e-6)),
    )


def square_root(values: np.ndarray) -> np.ndarray:
    """Square root; 0 for negative values."""
    return np.sqrt(np.maximum(values, 0))
