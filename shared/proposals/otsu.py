"""Threshold two classes of values: Otsu 1979, IEEE Trans. SMC 9(1)."""

import math

import numpy as np
from pydantic import BaseModel

UNIMODAL = 2 / math.pi
"""Otsu's separability of a normal distribution."""
BINS = 256


class Split(BaseModel):
    """Two classes of numbers."""

    threshold: float
    separability: float
    """Share of the variance between the classes, 0 to 1; 0 where all numbers are equal."""
    spread: float
    """Distance of the class means."""


def otsu(values: np.ndarray) -> Split:
    """Otsu's threshold over numbers of any shape, with 256 bins between their 0.1 and 99.9 percentiles."""
    low, high = np.percentile(values, [0.1, 99.9]) if values.size else (0.0, 0.0)
    if not high > low:
        return Split(threshold=float(low), separability=0.0, spread=1.0)
    counts, edges = np.histogram(np.clip(values, low, high), BINS, (float(low), float(high)))
    centres = (edges[1:] + edges[:-1]) / 2
    weight = np.cumsum(counts) / counts.sum()
    first = np.cumsum(counts * centres) / counts.sum()
    inner = slice(0, BINS - 1)  # a threshold at the upper end would leave a class empty
    w, m = weight[inner], first[inner]
    between = np.divide((first[-1] * w - m) ** 2, w * (1 - w), out=np.zeros_like(w), where=(w > 0) & (w < 1))
    best = int(between.argmax())
    variance = float((counts * (centres - first[-1]) ** 2).sum() / counts.sum())
    spread = (first[-1] - m[best]) / (1 - w[best]) - m[best] / w[best]
    return Split(
        threshold=float(edges[best + 1]), separability=float(between[best] / variance), spread=float(max(spread, 1e-6))
    )


def rooted(values: np.ndarray) -> np.ndarray:
    """Square root, 0 below 0."""
    return np.sqrt(np.maximum(values, 0))
