"""Select the clusters that are foreground, by a reference: classical proposals, or the labels of some images."""

from dataclasses import dataclass

import numpy as np


@dataclass
class ClusterSelection:
    """Which of k clusters are foreground."""

    foreground_share: np.ndarray
    """(k,) share of each cluster's area that is foreground in the reference."""
    probability: np.ndarray
    """(k,) float32, foreground probability of a cluster's tokens; above 0.5 for a foreground cluster."""
    dice: float
    """Dice of the foreground clusters with the reference, over tokens; 0 where the reference is empty."""

    def foreground_clusters(self) -> list[int]:
        """Return the numbers of the foreground clusters, from 0."""
        return [int(c) for c in np.flatnonzero(self.probability > 0.5)]


class ClusterCounts:
    """Area of each cluster, and how much of it is foreground in the reference, summed over images."""

    def __init__(self, k: int) -> None:
        self.area = np.zeros(k)
        self.foreground = np.zeros(k)

    def add(self, shares: np.ndarray, reference: np.ndarray) -> None:
        """Add the tokens of an image. shares: (..., k) of `Clusters.assign`; reference: (...), foreground in [0, 1]."""
        flat = shares.reshape(-1, shares.shape[-1]).astype(np.float64)
        self.area += flat.sum(axis=0)
        self.foreground += reference.reshape(-1).astype(np.float64) @ flat

    def select(self) -> ClusterSelection:
        """Select the clusters whose union has the highest Dice with the reference.

        The best union always consists of the clusters with the largest shares. At the optimum F it contains every
        cluster with a share above F / 2 (Lipton et al. 2014, arXiv:1402.1892, theorem 1), so F / 2 becomes probability
        0.5.
        """
        share = self.foreground / np.maximum(self.area, 1e-9)
        if self.foreground.sum() <= 0:
            return ClusterSelection(share, np.zeros(len(share), np.float32), 0.0)
        order = np.argsort(-share, kind="stable")
        hit, taken = np.cumsum(self.foreground[order]), np.cumsum(self.area[order])
        dice = float((2 * hit / (taken + self.foreground.sum())).max())
        cut = dice / 2
        odds = share * (1 - cut) / np.maximum(share * (1 - cut) + cut * (1 - share), 1e-9)
        return ClusterSelection(share, odds.astype(np.float32), dice)


class TwoFoldCounts:
    """Counts of every second image each, for two-fold cross-validation of a selection."""

    def __init__(self, k: int) -> None:
        self.folds = ClusterCounts(k), ClusterCounts(k)
        self.images = 0

    def add(self, shares: np.ndarray, reference: np.ndarray) -> None:
        """Add the next image, see `ClusterCounts.add`."""
        self.folds[self.images % 2].add(shares, reference)
        self.images += 1

    def total(self) -> ClusterCounts:
        """Return the counts of all images."""
        one, other = self.folds
        total = ClusterCounts(len(one.area))
        total.area, total.foreground = one.area + other.area, one.foreground + other.foreground
        return total

    def cross_validated_dice(self) -> float:
        """Mean Dice, over tokens, of the clusters selected on one fold with the reference of the other.

        A single image is scored on its own reference.
        """
        if self.images < 2:
            return self.total().select().dice
        one, other = self.folds
        return (_dice(one.select(), other) + _dice(other.select(), one)) / 2


def _dice(selection: ClusterSelection, counts: ClusterCounts) -> float:
    selected = selection.foreground_clusters()
    total = counts.area[selected].sum() + counts.foreground.sum()
    return float(2 * counts.foreground[selected].sum() / total) if total > 0 else 0.0
