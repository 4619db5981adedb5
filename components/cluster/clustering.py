"""Cluster tokens by principal components and k-means.

Equal tokens, seed and thread count give equal results, bit for bit.
"""

from dataclasses import dataclass

import numpy as np

from components.cluster.coreset_kmeans import CHUNK, kmeans
from shared.artifacts.feature_set import FeatureReader

_MAX_TOKENS = 100_000
_MAX_BYTES = 256 * 2**20
"""Limits of the sample that clusters are fitted to."""


@dataclass
class Clusters:
    """Centroids, and the projection of tokens to the space of the centroids."""

    mean: np.ndarray
    """(channels,) float32"""
    basis: np.ndarray
    """(channels, dimensions) float32: principal axes, whitened as configured."""
    centroids: np.ndarray
    """(k, dimensions) float32, the largest cluster first."""
    temperature: float
    """Half the median difference between a token's squared distances to its two nearest centroids."""

    def __len__(self) -> int:
        return len(self.centroids)

    def assign(self, tokens: np.ndarray) -> np.ndarray:
        """Tokens (..., channels) -> soft assignment (..., k) float32; the shares of a token sum to 1."""
        flat = tokens.reshape(-1, tokens.shape[-1])
        shares = np.empty((len(flat), len(self)), np.float32)
        directions = self.basis @ self.centroids.T  # centroids projected to the tokens' space, once
        half = (self.centroids**2).sum(axis=1) / 2
        for i in range(0, len(flat), CHUNK):
            rows = np.subtract(flat[i : i + CHUNK], self.mean, dtype=np.float32, casting="same_kind")
            score = np.matmul(rows, directions, out=shares[i : i + CHUNK])
            score -= half
            score -= score.max(axis=1, keepdims=True)  # half the squared distance to the nearest, less that to each
            score *= 2 / self.temperature
            np.exp(score, out=score)
            score /= score.sum(axis=1, keepdims=True)
        return shares.reshape(*tokens.shape[:-1], -1)


def sample_tokens(features: FeatureReader, keys: list[str], seed: int) -> np.ndarray:
    """Sample up to 100,000 tokens (and 256 MiB), equally many of every image if it has them: (n, channels) float32."""
    total = min(_MAX_TOKENS, _MAX_BYTES // (4 * max(1, features.channels)))
    per_image = max(1, total // len(keys))
    rows = []
    for number, key in enumerate(keys):
        tokens = features.tokens(key)
        tokens = tokens.reshape(-1, tokens.shape[-1])
        count = min(len(tokens), per_image)
        chosen = np.random.default_rng([seed, number]).choice(len(tokens), count, replace=False)
        rows.append(np.asarray(tokens[np.sort(chosen)], np.float32))
    return np.concatenate(rows)


def fit_clusters(tokens: np.ndarray, *, k: int, pca_components: int | None, whitening: float, seed: int) -> Clusters:
    """Fit at most k clusters to tokens (n, channels) float32, fewer where fewer tokens differ.

    pca_components: principal components kept, None: no PCA; whitening: each axis is divided by its standard deviation
    to this power.
    """
    mean, basis = principal_axes(tokens, pca_components, whitening)
    points = np.ascontiguousarray((tokens - mean) @ basis)
    centroids = kmeans(points, k, seed)
    distance = squared_distances(points, centroids)
    population = np.bincount(distance.argmin(axis=1), minlength=len(centroids))
    order = np.argsort(-population, kind="stable")
    return Clusters(mean, basis, np.ascontiguousarray(centroids[order]), _temperature(distance))


def principal_axes(tokens: np.ndarray, pca_components: int | None, whitening: float) -> tuple[np.ndarray, np.ndarray]:
    """Compute the mean (channels,) and the axes (channels, dimensions), both float32; largest entries are positive."""
    channels = tokens.shape[1]
    mean = tokens.mean(axis=0, dtype=np.float64)
    if pca_components is None and whitening == 0:
        return mean.astype(np.float32), np.eye(channels, dtype=np.float32)
    centred = (tokens - mean.astype(np.float32)).astype(np.float32)
    covariance = (centred.T @ centred).astype(np.float64) / max(1, len(tokens) - 1)
    variance, axes = np.linalg.eigh(covariance)
    kept = np.argsort(-variance, kind="stable")[: pca_components or channels]
    variance, axes = variance[kept], axes[:, kept]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(len(kept))] < 0, -1.0, 1.0)
    scale = np.maximum(variance, 1e-6 * max(float(variance.max()), 1e-12)) ** (-whitening / 2)
    return mean.astype(np.float32), (axes * scale).astype(np.float32)


def squared_distances(points: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """(n, d), (k, d) -> (n, k) float32, never below 0."""
    cross = points @ centroids.T
    squares = (points**2).sum(axis=1, keepdims=True) + (centroids**2).sum(axis=1)
    return np.maximum(squares - 2 * cross, 0)


def _temperature(distance: np.ndarray) -> float:
    """Temperature of the soft assignment for squared distances (n, k)."""
    if distance.shape[1] < 2:
        return 1.0
    nearest = np.partition(distance, 1, axis=1)[:, :2]
    return max(float(np.median(nearest[:, 1] - nearest[:, 0])) / 2, 1e-6)
