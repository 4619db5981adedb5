"""Show features as pictures: their first three principal components as red, green and blue."""

import numpy as np


def pca_rgb(maps: list[np.ndarray]) -> list[np.ndarray]:
    """Feature maps, each (h, w, channels) floating point -> pictures (h, w, 3) uint8, on axes common to all maps.

    The largest weight of a component is positive. The 1st and 99th percentile of a component become 0 and 255.
    """
    rows = np.concatenate([item.reshape(-1, item.shape[-1]) for item in maps]).astype(np.float64)
    sample = rows[:: max(1, len(rows) // 20_000)]
    centre = sample.mean(axis=0)
    axes = _principal_axes(sample - centre)
    low, high = np.percentile((sample - centre) @ axes, [1, 99], axis=0)
    pictures = []
    for item in maps:
        values = ((item.astype(np.float64) - centre) @ axes - low) / np.maximum(high - low, 1e-12)
        picture = np.zeros((*item.shape[:2], 3), np.uint8)
        picture[..., : axes.shape[1]] = np.rint(values.clip(0, 1) * 255)
        pictures.append(picture)
    return pictures


def _principal_axes(centred: np.ndarray) -> np.ndarray:
    """Centred rows (n, channels) -> first axes (channels, at most 3), largest variance first."""
    _, vectors = np.linalg.eigh(np.cov(centred, rowvar=False).reshape(centred.shape[1], -1))
    axes = vectors[:, ::-1][:, :3]
    return axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
