"""How foreground is told in a set: by which clusters, beside which classical proposals, and what weighs how much."""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from components.cluster import token_grid as grid
from components.cluster.cluster_selection import Foreground, Halves
from components.cluster.clustering import Clusters
from shared.artifacts.feature_set import FeatureReader
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import LabelReader
from shared.imaging.grey import grey
from shared.metrics.pixels import dice_masks
from shared.proposals.proposal import Proposal
from shared.proposals.proposal_selection import ProposalSelection
from shared.system.devices import threads
from shared.system.parallel import in_order

JUDGED_IMAGES = 64
"""Images, evenly spread over the set, that proposals and clusters are judged on."""
HELD = 48
"""Bytes for each px of an image while it is worked on, about."""
TIE = 0.01
"""Of agreement: of clusterings so close to the best one the first is taken."""
CLUSTER_WEIGHTS = (0.0, 0.5, 1.0)
"""What labels may choose from."""


@dataclass
class Rule:
    """How the foreground probability of an image is made: decided once for the set."""

    clusters: Clusters
    foreground: Foreground
    choice: ProposalSelection
    agreement: dict[int, float]
    """Number of clusters asked for -> how well its foreground clusters agreed with the reference."""
    cluster_weight: float
    model_weight: float
    proposal: Proposal | None = None
    """Instead of the choice, where labels say so."""

    def proposals(self) -> dict[str, int]:
        """Name of each proposal that serves some of the images judged -> how many of them it serves."""
        taken = self.choice.taken()
        return dict(Counter(one.name for one in taken)) if self.proposal is None else {self.proposal.name: len(taken)}

    def propose(self, image: np.ndarray) -> np.ndarray:
        """Classical foreground probability of an image (H, W, C): (H, W) float32."""
        return (self.proposal or self.choice).probability(image)

    def apply(self, image: np.ndarray, features: FeatureReader, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, C) -> foreground probability (H, W) float32, and each pixel's cluster plus 1 (H, W) uint8."""
        entry = features.entries[key]
        shares = self.clusters.assign(features.tokens(key))
        number = grid.nearest(shares.argmax(axis=-1) + 1, entry)
        probability = np.zeros(image.shape[:2], np.float32)
        if self.cluster_weight > 0:
            tokens = shares @ self.foreground.probability
            probability += self.cluster_weight * grid.to_pixels(tokens, entry, grey(image))
        if self.cluster_weight < 1:
            probability += (1 - self.cluster_weight) * self.propose(image)
        model = features.probability(key)
        if model is not None:
            probability = self.model_weight * model + (1 - self.model_weight) * probability
        return probability, number


def by_proposal(
    images: ImageReader, features: FeatureReader, tried: dict[int, Clusters], cluster_weight: float, model_weight: float
) -> Rule:
    """Label-free: the classical proposals say which clusters are foreground, and stay in the fusion.

    Of several clusterings the one is taken whose foreground, told on half of the images, agrees best with the proposals
    on the other half.
    """
    keys = evenly_spaced(features.keys(), JUDGED_IMAGES)
    choice = ProposalSelection.among(images.read(key) for key in keys)

    def one(key: str) -> tuple[list[np.ndarray], np.ndarray]:
        mask = (choice.probability(images.read(key)) >= 0.5).astype(np.float32)
        return _shares(tried, features, key), grid.to_tokens(mask, features.entries[key])

    with ThreadPoolExecutor(threads()) as pool:
        best, agreement, foreground = _judged(tried, in_order(pool, one, keys, lambda key: HELD * images.pixels(key)))
    return Rule(tried[best], foreground, choice, agreement, cluster_weight * foreground.dice, model_weight)


def by_labels(
    images: ImageReader,
    features: FeatureReader,
    tried: dict[int, Clusters],
    truth: LabelReader,
    keys: list[str],
    model_weight: float,
) -> Rule:
    """Few labels, those of `keys`: they say which clusters are foreground, which proposal is best, what weighs more."""

    def one(key: str) -> tuple[list[np.ndarray], np.ndarray]:
        mask = (truth.mask(key) > 0).astype(np.float32)
        return _shares(tried, features, key), grid.to_tokens(mask, features.entries[key])

    best, agreement, foreground = _judged(tried, map(one, keys))
    choice = ProposalSelection.among(images.read(key) for key in evenly_spaced(features.keys(), JUDGED_IMAGES))
    proposals = [None, *choice.each()]
    scores = np.zeros((len(proposals), len(CLUSTER_WEIGHTS)))
    for key in keys:
        image, mask, model = images.read(key), truth.mask(key) > 0, features.probability(key)
        tokens = tried[best].assign(features.tokens(key)) @ foreground.probability
        clusters = grid.to_pixels(tokens, features.entries[key], grey(image))
        for row, proposal in enumerate(proposals):
            proposed = (proposal or choice).probability(image)
            for column, weight in enumerate(CLUSTER_WEIGHTS):
                found = weight * clusters + (1 - weight) * proposed
                found = found if model is None else model_weight * model + (1 - model_weight) * found
                scores[row, column] += dice_masks((found >= 0.5).astype(np.uint8), mask)
    row, column = divmod(int(scores.argmax()), len(CLUSTER_WEIGHTS))
    return Rule(tried[best], foreground, choice, agreement, CLUSTER_WEIGHTS[column], model_weight, proposals[row])


def _shares(tried: dict[int, Clusters], features: FeatureReader, key: str) -> list[np.ndarray]:
    tokens = features.tokens(key)
    return [clusters.assign(tokens) for clusters in tried.values()]


def _judged(
    tried: dict[int, Clusters], found: Iterable[tuple[list[np.ndarray], np.ndarray]]
) -> tuple[int, dict[int, float], Foreground]:
    """Which of the clusterings agrees best with the reference, how well each does, and its foreground clusters.

    found: of every image the shares of the clusters (..., k), of each clustering, and the reference (...) in [0, 1].
    """
    halves = {k: Halves(len(clusters)) for k, clusters in tried.items()}
    for shares, reference in found:
        for of, share in zip(halves.values(), shares, strict=True):
            of.add(share, reference)
    agreement = {k: of.agreement() for k, of in halves.items()}
    best = next(k for k, value in agreement.items() if value >= max(agreement.values()) - TIE)
    return best, agreement, halves[best].whole().judge()
