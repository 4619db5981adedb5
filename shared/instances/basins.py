"""Merge basins of a watershed whose saddle is high."""

import numpy as np


def merge_shallow(parts: np.ndarray, depth: np.ndarray, saddle: float) -> np.ndarray:
    """Which basins of a watershed are one object: table (n + 1,) int32, old part -> new part, both from 1.

    parts: (h, w), 0 outside; depth: (h, w). From the deepest saddle down, two basins join where the saddle between
    them has at least `saddle` times the depth of the shallower one's peak: dynamics (Grimaud 1992), made relative
    so that one value serves objects of every size.
    """
    count = int(parts.max())
    inside = np.flatnonzero(parts > 0)
    peak = np.zeros(count + 1, depth.dtype)
    np.maximum.at(peak, parts.ravel()[inside], depth.ravel()[inside])
    first, second, height = _contacts(parts, depth)
    root, top = list(range(count + 1)), peak.tolist()
    for i in np.argsort(-height, kind="stable").tolist() if saddle < 1 else []:
        a, b = sorted((_find(root, int(first[i])), _find(root, int(second[i]))))
        if a != b and height[i] >= saddle * min(top[a], top[b]):
            root[b] = a
            top[a] = max(top[a], top[b])
    roots = np.array([_find(root, part) for part in range(count + 1)])
    return np.unique(roots, return_inverse=True)[1].astype(np.int32)


def _contacts(parts: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Touching pairs of parts, ascending, and the depth of the saddle between them: the deepest way across."""
    found = []
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        touch = np.nonzero((parts[here] != parts[there]) & (parts[here] > 0) & (parts[there] > 0))
        a, b = parts[here][touch], parts[there][touch]
        way = np.minimum(depth[here][touch], depth[there][touch])
        found.append((np.minimum(a, b), np.maximum(a, b), way))
    low, high, ways = (np.concatenate(column) for column in zip(*found, strict=True))
    pairs, which = np.unique(low.astype(np.int64) << 32 | high, return_inverse=True)
    height = np.zeros(len(pairs), depth.dtype)
    np.maximum.at(height, which, ways)
    return pairs >> 32, pairs & 0xFFFFFFFF, height


def _find(root: list[int], part: int) -> int:
    while root[part] != part:
        part = root[part]
    return part
