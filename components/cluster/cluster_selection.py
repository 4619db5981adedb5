"""Which clusters are cells, judged by a reference: a classical proposal, or the truth of a few images."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Foreground:
    """The verdict on k clusters."""

    share: np.ndarray
    """(k,) share of each cluster's area that the reference calls foreground."""
    probability: np.ndarray
    """(k,) float32: foreground probability a token of the cluster gets; above 0.5 where the cluster is foreground."""
    dice: float
    """Dice of the foreground clusters with the reference, over tokens; 0 where the reference is empty."""

    def clusters(self) -> list[int]:
        """Numbers of the foreground clusters, from 0."""
        return [int(c) for c in np.flatnonzero(self.probability > 0.5)]


class Tally:
    """Adds up, over images, how much of each cluster the reference calls foreground."""

    def __init__(self, k: int) -> None:
        self.area = np.zeros(k)
        self.foreground = np.zeros(k)

    def add(self, shares: np.ndarray, reference: np.ndarray) -> None:
        """shares: (..., k) of `Clusters.assign`; reference: (...) foreground in [0, 1] of the same tokens."""
        flat = shares.reshape(-1, shares.shape[-1]).astype(np.float64)
        self.area += flat.sum(axis=0)
        self.foreground += reference.reshape(-1).astype(np.float64) @ flat

    def judge(self) -> Foreground:
        """Take the clusters whose union has the highest Dice with the reference.

        The best union is always made of the clusters with the largest shares. At the optimum F every cluster with a
        share above F / 2 is in it (Lipton et al. 2014, arXiv:1402.1892, theorem 1), so F / 2 becomes probability 0.5.
        """
        share = self.foreground / np.maximum(self.area, 1e-9)
        if self.foreground.sum() <= 0:
            return Foreground(share, np.zeros(len(share), np.float32), 0.0)
        order = np.argsort(-share, kind="stable")
        hit, taken = np.cumsum(self.foreground[order]), np.cumsum(self.area[order])
        dice = float((2 * hit / (taken + self.foreground.sum())).max())
        cut = dice / 2
        odds = share * (1 - cut) / np.maximum(share * (1 - cut) + cut * (1 - share), 1e-9)
        return Foreground(share, odds.astype(np.float32), dice)


class Halves:
    """Two tallies, of every second image each, so that a verdict can be tried on images it was not made from."""

    def __init__(self, k: int) -> None:
        self.tallies = Tally(k), Tally(k)
        self.images = 0

    def add(self, shares: np.ndarray, reference: np.ndarray) -> None:
        """As `Tally.add`, for the next image."""
        self.tallies[self.images % 2].add(shares, reference)
        self.images += 1

    def whole(self) -> Tally:
        """Both as one."""
        one, other = self.tallies
        both = Tally(len(one.area))
        both.area, both.foreground = one.area + other.area, one.foreground + other.foreground
        return both

    def agreement(self) -> float:
        """Dice, over tokens, of the clusters that one half calls foreground with the other half's reference, mean.

        Of a single image, with its own reference.
        """
        if self.images < 2:
            return self.whole().judge().dice
        one, other = self.tallies
        return (_dice(one.judge(), other) + _dice(other.judge(), one)) / 2


def _dice(verdict: Foreground, tally: Tally) -> float:
    chosen = verdict.clusters()
    total = tally.area[chosen].sum() + tally.foreground.sum()
    return float(2 * tally.foreground[chosen].sum() / total) if total > 0 else 0.0
