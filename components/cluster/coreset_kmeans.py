"""k-means on a weighted sample, then one iteration over all points.

500,000 patches of 384 values, k = 64, one core (2026-11-28): 1.4 s at 1.000 times the inertia of scikit-learn, which
takes 35 s; faiss alone takes 0.5 s at 1.08 times (its default sample) or 9.9 s at 1.04 times (all points). On 8,000 to
12,000 tokens, faiss alone ends 1 to 10 % above in inertia (RESULTS.md, "Constants"; `benchmarks/bench_kmeans.py`).

The sample is a lightweight coreset (Bachem et al. 2018, arXiv:1702.08248): half of a point's chance is equal for all,
half is in proportion to its squared distance from the mean; weights compensate for it. Lloyd's iterations are faiss's.
"""

import faiss
import numpy as np
from scipy.sparse import csr_array

from shared.system.devices import faiss_gpus, threads

POINTS_PER_CENTROID = 1024
"""Points in the sample for each centroid."""
MIN_SAMPLE = 2**15
"""Points in the sample, at least; of at most this many points, all are used."""
MAX_AXES = 48
"""Principal axes of the sample in which the search runs: 98 % of the variance of image patches."""
ITERATIONS = 20
CHUNK = 2**14
"""Points that are processed at a time."""
_POOL_FACTOR = 4
"""The sample is drawn from evenly spread points, at least this many times its size."""
_STARTS, _TRIAL_ITERATIONS = 3, 4
"""Starts that are compared, and iterations on half of the sample after which the best is kept."""
_CACHED_CHUNK = 2**11
"""Points at a time where a temporary array is as large as they are, so that it stays in the cache."""
_ROUNDING = 1e-6
"""Squared distance, relative to the points' squared lengths, that rounding may cause."""


def kmeans(points: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Cluster points (n, d) float32, C-contiguous: at most k centroids (k, d) float32, fewer where fewer points differ.

    Equal points, seed and thread count give equal centroids, bit for bit; on a GPU, where faiss has one, nearly.
    """
    rng = np.random.default_rng(seed)
    sample, weights = _coreset(points, max(POINTS_PER_CENTROID * k, MIN_SAMPLE), rng)
    projected = _principal(sample, weights)
    first = _initial_centroids(projected, weights, k, rng)
    if len(first) < k:  # points that differ may coincide in a few axes
        projected = sample
        first = _initial_centroids(projected, weights, k, rng)
    found, _ = _lloyd(projected, weights, first, ITERATIONS - 1)
    empty = np.zeros((len(found), points.shape[1]), np.float32)
    centroids = _cluster_means(sample, weights, nearest_centroids(projected, found), empty)
    if len(sample) == len(points):
        return _lloyd(points, weights, centroids, ITERATIONS)[0]
    ones = np.ones(len(points), np.float32)
    return _cluster_means(points, ones, nearest_centroids(points, centroids), centroids)


def nearest_centroids(points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Index of each point's nearest centroid: (n, d), (k, d) -> (n,) int32."""
    half = (centroids**2).sum(axis=1) / 2
    found = np.empty(len(points), np.int32)
    for i in range(0, len(points), CHUNK):
        score = points[i : i + CHUNK] @ centroids.T
        score -= half  # minus half the squared distance, up to a term common to all centroids
        found[i : i + CHUNK] = score.argmax(axis=1)
    return found


def _coreset(points: np.ndarray, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw `size` of the points with replacement, with the weight (n,) float32 of each; all, where there are fewer."""
    if len(points) <= size:
        return points, np.ones(len(points), np.float32)
    pool = points[:: max(1, len(points) // (_POOL_FACTOR * size))]
    mean = pool[:: max(1, len(pool) // size)].mean(axis=0)
    squared_distance = np.empty(len(pool), np.float32)
    for i in range(0, len(pool), _CACHED_CHUNK):
        offset = pool[i : i + _CACHED_CHUNK] - mean
        np.einsum("nd,nd->n", offset, offset, out=squared_distance[i : i + _CACHED_CHUNK])
    total = max(float(squared_distance.sum(dtype=np.float64)), 1e-30)
    chance = 0.5 / len(pool) + 0.5 * squared_distance / total
    drawn = np.sort(_draw(chance, size, rng))
    return pool[drawn], (1 / (len(pool) * chance[drawn])).astype(np.float32)


def _principal(points: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Project points on their first principal axes: (n, at most MAX_AXES) float32. Distances stay equal or shrink."""
    if points.shape[1] <= MAX_AXES:
        return points
    step = min(8, max(1, len(points) // (4 * points.shape[1])))
    some, own = points[::step], weights[::step, None]
    mean = (some * own).sum(axis=0) / own.sum()
    scaled = (some - mean) * np.sqrt(own)
    axes = np.ascontiguousarray(np.linalg.eigh(scaled.T @ scaled)[1][:, -MAX_AXES:])
    return points @ axes - mean @ axes


def _initial_centroids(points: np.ndarray, weights: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Choose at most k initial centroids: of several starts the one of lowest inertia after a few iterations."""
    half, half_weights = np.ascontiguousarray(points[::2]), np.ascontiguousarray(weights[::2])
    tried = []
    for _ in range(_STARTS):
        some = rng.permutation(len(points))[: max(len(points) // 4, MIN_SAMPLE // 4)]
        first = _kmeans_plus_plus(points[some], weights[some], k, rng)
        if len(first) < k:  # too few of these differ
            first = _kmeans_plus_plus(points, weights, k, rng)
        if len(first) > len(half):
            return first
        tried.append(_lloyd(half, half_weights, first, _TRIAL_ITERATIONS))
    return min(tried, key=lambda found: found[1])[0]


def _kmeans_plus_plus(points: np.ndarray, weights: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Draw at most k different points by k-means++ (Arthur & Vassilvitskii 2007), each the best of several draws."""
    draws = 2 + int(np.log(k))
    length = np.einsum("nd,nd->n", points, points)
    chosen = [_draw(weights, 1, rng)[0]]
    smallest = _squared_distances(points, length, np.array(chosen))[:, 0]
    while len(chosen) < k and smallest.any():
        drawn = _draw(smallest * weights, draws, rng)
        reached = np.minimum(_squared_distances(points, length, drawn), smallest[:, None])
        best = int((weights @ reached).argmin())
        smallest = np.ascontiguousarray(reached[:, best])
        chosen.append(drawn[best])
    return points[chosen]


def _draw(weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw indices in proportion to weights; never one of weight 0."""
    total = np.cumsum(weights, dtype=np.float64)
    # below the total, the search ends at an index of positive weight
    return np.searchsorted(total, np.minimum(rng.random(count) * total[-1], np.nextafter(total[-1], 0)), side="right")


def _squared_distances(points: np.ndarray, length: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Squared distance of each point to each chosen one: (n, c) float32; 0 where it is within rounding."""
    both = length[:, None] + length[chosen]
    distance = both - 2 * (points @ points[chosen].T)
    distance[distance <= _ROUNDING * both] = 0
    return distance


def _lloyd(points: np.ndarray, weights: np.ndarray, first: np.ndarray, iterations: int) -> tuple[np.ndarray, float]:
    """Run Lloyd's iterations of faiss (Johnson et al. 2017, arXiv:1702.08734): centroids, and the last inertia.

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


def _cluster_means(points: np.ndarray, weights: np.ndarray, own: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Mean of each cluster's points: (k, d) float32; `otherwise` (k, d) where a cluster is empty.

    weights: (n,) float32; own: (n,), the cluster of each point.
    """
    k = len(otherwise)
    total, share = np.zeros(otherwise.shape), np.bincount(own, weights, k)
    for i in range(0, len(points), CHUNK):
        rows, clusters, weight = points[i : i + CHUNK], own[i : i + CHUNK], weights[i : i + CHUNK]
        total += csr_array((weight, (clusters, np.arange(len(rows)))), (k, len(rows))) @ rows
    return np.where(share[:, None] > 0, total / np.maximum(share, 1e-30)[:, None], otherwise).astype(np.float32)
