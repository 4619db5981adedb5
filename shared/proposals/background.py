"""Estimate the background of a plane: a smooth surface, and the spread of the pixels that belong to it."""

import numpy as np

_SAMPLE_PX = 20_000
"""Pixels that the surface is fitted to, about."""
_SHARE = 0.25
"""Share of the pixels, those of the densest values, that the spread is measured on."""
_WIDTH_OF_SHARE = 0.6372
"""Width of the interval that holds this share of a normal distribution, in standard deviations."""
_CUTOFF = 3.0
"""Spreads from the surface at which a pixel has no weight any more."""
_ITERATIONS = 8
_RIDGE = 1e-6
"""Weight that keeps the coefficients finite where too few pixels determine them."""


def subtract_background(plane: np.ndarray) -> tuple[np.ndarray, float]:
    """Subtract the background from a plane (H, W) float32; return the difference and the background's spread.

    The surface is quadratic, fitted by reweighted least squares with Tukey's biweight (Beaton & Tukey 1974), from the
    densest values on: the shortest interval that holds a quarter of the pixels. So objects may cover most of the plane,
    as long as their values vary more than the background's. The spread, above 0, is the standard deviation of a plane
    without objects; with objects it is larger, twice as large where they cover half of the plane.
    """
    step = max(1, int((plane.size / _SAMPLE_PX) ** 0.5))
    sampled = plane[::step, ::step]
    y, x = _coordinates(*sampled.shape)
    basis = np.stack([term.ravel() for term in np.broadcast_arrays(np.ones_like(y * x), x, y, x * x, y * y, x * y)], -1)
    values = sampled.ravel().astype(np.float64)
    level, spread = _densest(values)
    surface = np.array([level, 0, 0, 0, 0, 0])
    for _ in range(_ITERATIONS):
        offset, narrowest = _densest(values - basis @ surface)
        spread = min(spread, narrowest)
        far = np.abs(values - basis @ surface - offset) / (_CUTOFF * spread)
        weight = np.where(far < 1, (1 - far**2) ** 2, 0)
        normal = basis.T @ (basis * weight[:, None]) + _RIDGE * (1 + weight.sum()) * np.eye(6)
        surface = np.linalg.solve(normal, basis.T @ (weight * values))
    offset, spread = _densest(values - basis @ surface)
    y, x = (axis.astype(np.float32) for axis in _coordinates(*plane.shape))
    level, along_x, along_y, xx, yy, xy = (surface + np.array([offset, 0, 0, 0, 0, 0])).astype(np.float32)
    return plane - (level + x * (along_x + xx * x) + y * (along_y + yy * y) + xy * x * y), spread


def _densest(values: np.ndarray) -> tuple[float, float]:
    """Centre of the shortest interval that holds a quarter of the values (n,), and the spread that it stands for."""
    ordered = np.sort(values)
    count = max(2, int(len(ordered) * _SHARE))
    if len(ordered) < count:
        return float(ordered[0]), 1e-6
    length = ordered[count - 1 :] - ordered[: len(ordered) - count + 1]
    first = int(length.argmin())
    return float(ordered[first] + ordered[first + count - 1]) / 2, max(float(length[first]) / _WIDTH_OF_SHARE, 1e-6)


def _coordinates(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of rows (height, 1) and columns (1, width), from -1 to 1, float64."""
    return np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
