"""Merge the basins of a watershed that a shallow saddle separates."""

import numpy as np


def merge_basins(basins: np.ndarray, distance: np.ndarray, merge_threshold: float) -> np.ndarray:
    """Find the basins of a watershed that are one object: table (n + 1,) int32, old number -> new number, both from 1.

    basins: (h, w), 0 outside; distance: (h, w), the map that was flooded, highest in the middle of an object. From the
    highest saddle down, two basins merge where the saddle between them has at least `merge_threshold` times the height
    of the lower peak; 1: never. These are dynamics (Grimaud 1992) relative to the peak, so that one value serves
    objects of every size.
    """
    count = int(basins.max())
    inside = np.flatnonzero(basins > 0)
    peaks = np.zeros(count + 1, distance.dtype)
    np.maximum.at(peaks, basins.ravel()[inside], distance.ravel()[inside])
    first, second, saddle = _saddles(basins, distance)
    root, peak = list(range(count + 1)), peaks.tolist()
    for i in np.argsort(-saddle, kind="stable").tolist() if merge_threshold < 1 else []:
        a, b = sorted((_find(root, int(first[i])), _find(root, int(second[i]))))
        if a != b and saddle[i] >= merge_threshold * min(peak[a], peak[b]):
            root[b] = a
            peak[a] = max(peak[a], peak[b])
    roots = np.array([_find(root, basin) for basin in range(count + 1)])
    return np.unique(roots, return_inverse=True)[1].astype(np.int32)


def _saddles(basins: np.ndarray, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the pairs of touching basins, ascending, and the height of the saddle between them: the highest pass."""
    found = []
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        touching = np.nonzero((basins[here] != basins[there]) & (basins[here] > 0) & (basins[there] > 0))
        a, b = basins[here][touching], basins[there][touching]
        crossing = np.minimum(distance[here][touching], distance[there][touching])
        found.append((np.minimum(a, b), np.maximum(a, b), crossing))
    low, high, crossings = (np.concatenate(column) for column in zip(*found, strict=True))
    pairs, pair = np.unique(low.astype(np.int64) << 32 | high, return_inverse=True)
    saddle = np.zeros(len(pairs), distance.dtype)
    np.maximum.at(saddle, pair, crossings)
    return pairs >> 32, pairs & 0xFFFFFFFF, saddle


def _find(root: list[int], basin: int) -> int:
    """Follow the merges of a basin to the one that stands for all of them."""
    while root[basin] != basin:
        basin = root[basin]
    return basin
