"""k-means on a weighted sample, then one iteration on every point: the inertia of all points at a fraction of the time.

The sample is a lightweight coreset (Bachem et al. 2018, arXiv:1702.08248): half of the chance is equal for all points,
half is in proportion to the squared distance from the mean, and weights undo it. An equal sample of the same size
ends 2 to 4 % above in inertia on patches of fluorescence images, whose bright nuclei are rare and far out.
"""

import faiss
import numpy as np
from scipy.sparse import csr_array

from shared.system.devices import faiss_gpus, threads

PER_CENTROID = 1024
"""Points in the sample for each centroid."""
LEAST = 2**15
"""Points in the sample at least; up to so many all are used."""
POOL = 4
"""The sample is drawn from evenly spread points of at least so many times its size."""
AXES = 48
"""Principal axes of the sample that the search goes on in: .98 of the variance of such patches."""
STARTS = 3
TRIAL = 4
"""Iterations on half of the sample that say which of the starts is gone on with."""
ITERATIONS = 20
ROWS = 2**14
"""Points at a time where all are passed over."""
SLICE = 2**11
"""The same where what is made of them is as large as they are, so that it stays in the cache."""
SAME = 1e-6
"""Squared distance, relative to the points' squared lengths, below which rounding may make all of it."""


def kmeans(points: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Points (n, d) float32, C-contiguous -> at most k centroids (k, d) float32, fewer where fewer points differ.

    Equal points, seed and thread count give equal centroids, bit for bit; on a GPU, where faiss has one, nearly.
    """
    rng = np.random.default_rng(seed)
    sample, weights = _coreset(points, max(PER_CENTROID * k, LEAST), rng)
    flat = _principal(sample, weights)
    first = _start(flat, weights, k, rng)
    if len(first) < k:  # points that differ may be the same in a few axes
        flat = sample
        first = _start(flat, weights, k, rng)
    found, _ = _lloyd(flat, weights, first, ITERATIONS - 1)
    centroids = _means(sample, weights, nearest(flat, found), np.zeros((len(found), points.shape[1]), np.float32))
    if len(sample) == len(points):
        return _lloyd(points, weights, centroids, ITERATIONS)[0]
    return _means(points, np.ones(len(points), np.float32), nearest(points, centroids), centroids)


def nearest(points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Index of each point's nearest centroid: (n, d), (k, d) -> (n,) int32."""
    half = (centroids**2).sum(axis=1) / 2
    found = np.empty(len(points), np.int32)
    for i in range(0, len(points), ROWS):
        score = points[i : i + ROWS] @ centroids.T
        score -= half  # half the squared distance, less what is the same for all centroids, and the sign turned
        found[i : i + ROWS] = score.argmax(axis=1)
    return found


def _coreset(points: np.ndarray, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`size` of the points, drawn with replacement, and the weight (n,) float32 of each; all, where there are fewer."""
    if len(points) <= size:
        return points, np.ones(len(points), np.float32)
    pool = points[:: max(1, len(points) // (POOL * size))]
    mean = pool[:: max(1, len(pool) // size)].mean(axis=0)
    far = np.empty(len(pool), np.float32)
    for i in range(0, len(pool), SLICE):
        away = pool[i : i + SLICE] - mean
        np.einsum("nd,nd->n", away, away, out=far[i : i + SLICE])
    chance = 0.5 / len(pool) + 0.5 * far / max(float(far.sum(dtype=np.float64)), 1e-30)
    drawn = np.sort(_draw(chance, size, rng))
    return pool[drawn], (1 / (len(pool) * chance[drawn])).astype(np.float32)


def _principal(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The points in their first principal axes: (n, at most AXES) float32. Distances are the same or shorter."""
    if points.shape[1] <= AXES:
        return points
    step = min(8, max(1, len(points) // (4 * points.shape[1])))
    few, own = points[::step], weights[::step, None]
    mean = (few * own).sum(axis=0) / own.sum()
    scaled = (few - mean) * np.sqrt(own)
    axes = np.ascontiguousarray(np.linalg.eigh(scaled.T @ scaled)[1][:, -AXES:])
    return points @ axes - mean @ axes


def _start(points: np.ndarray, weights: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """At most k centroids to start from: of several starts the one that is best after a few iterations."""
    half, half_weights = np.ascontiguousarray(points[::2]), np.ascontiguousarray(weights[::2])
    tries = []
    for _ in range(STARTS):
        few = rng.permutation(len(points))[: max(len(points) // 4, LEAST // 4)]
        first = _spread(points[few], weights[few], k, rng)
        if len(first) < k:  # not so many different ones among the few
            first = _spread(points, weights, k, rng)
        if len(first) > len(half):
            return first
        tries.append(_lloyd(half, half_weights, first, TRIAL))
    return min(tries, key=lambda found: found[1])[0]


def _spread(points: np.ndarray, weights: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """At most k different points to start from: k-means++ (Arthur & Vassilvitskii 2007), the best of several draws."""
    draws = 2 + int(np.log(k))
    length = np.einsum("nd,nd->n", points, points)
    chosen = [_draw(weights, 1, rng)[0]]
    least = _away(points, length, np.array(chosen))[:, 0]
    while len(chosen) < k and least.any():
        drawn = _draw(least * weights, draws, rng)
        reached = np.minimum(_away(points, length, drawn), least[:, None])
        best = int((weights @ reached).argmin())
        least = np.ascontiguousarray(reached[:, best])
        chosen.append(drawn[best])
    return points[chosen]


def _draw(weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Indices drawn in proportion to weights; never one of weight 0."""
    total = np.cumsum(weights, dtype=np.float64)
    # the sum of a draw below the whole ends at an index that adds to it
    return np.searchsorted(total, np.minimum(rng.random(count) * total[-1], np.nextafter(total[-1], 0)), side="right")


def _away(points: np.ndarray, length: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Squared distance of each point to each chosen one: (n, c) float32; 0 where it is within rounding."""
    both = length[:, None] + length[chosen]
    distance = both - 2 * (points @ points[chosen].T)
    distance[distance <= SAME * both] = 0
    return distance


def _lloyd(points: np.ndarray, weights: np.ndarray, first: np.ndarray, iterations: int) -> tuple[np.ndarray, float]:
    """Lloyd's iterations of faiss (Johnson et al. 2017, arXiv:1702.08734): centroids, and the last inertia.

    The inertia is that of the centroids before the last iteration.
    """
    if len(first) == len(points):
        return first, 0.0
    faiss.omp_set_num_threads(threads())
    engine = faiss.Kmeans(
        points.shape[1],
        len(first),
        niter=iterations,
        min_points_per_centroid=1,
        max_points_per_centroid=len(points),
        gpu=faiss_gpus(),
    )
    engine.train(points, weights=weights, init_centroids=first)
    return np.array(engine.centroids, np.float32), float(np.asarray(engine.obj)[-1])


def _means(points: np.ndarray, weights: np.ndarray, own: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Mean of each cluster's points (k, d) float32; `otherwise` where a cluster is empty.

    weights: (n,) float32; own: (n,), the cluster of each point.
    """
    k = len(otherwise)
    total, share = np.zeros(otherwise.shape), np.bincount(own, weights, k)
    for i in range(0, len(points), ROWS):
        rows, names, each = points[i : i + ROWS], own[i : i + ROWS], weights[i : i + ROWS]
        total += csr_array((each, (names, np.arange(len(rows)))), (k, len(rows))) @ rows
    return np.where(share[:, None] > 0, total / np.maximum(share, 1e-30)[:, None], otherwise).astype(np.float32)
