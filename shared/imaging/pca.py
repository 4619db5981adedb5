"""Features as pictures: their first three principal components as red, green and blue."""

import numpy as np


def pca_rgb(maps: list[np.ndarray]) -> list[np.ndarray]:
    """Feature maps, each (h, w, channels) floating point -> (h, w, 3) uint8 each, on axes common to all.

    A component's sign is fixed by its largest weight; 1 % and 99 % of a component become 0 and 255.
    """
    rows = np.concatenate([item.reshape(-1, item.shape[-1]) for item in maps]).astype(np.float64)
    sample = rows[:: max(1, len(rows) // 20_000)]
    centre = sample.mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov(sample - centre, rowvar=False).reshape(rows.shape[1], -1))
    axes = vectors[:, ::-1][:, :3]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    low, high = np.percentile((sample - centre) @ axes, [1, 99], axis=0)
    pictures = []
    for item in maps:
        values = ((item.astype(np.float64) - centre) @ axes - low) / np.maximum(high - low, 1e-12)
        picture = np.zeros((*item.shape[:2], 3), np.uint8)
        picture[..., : axes.shape[1]] = np.rint(values.clip(0, 1) * 255)
        pictures.append(picture)
    return pictures
