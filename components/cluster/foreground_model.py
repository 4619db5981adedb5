"""Fit and apply the model of the foreground: clusters and classical proposals, and their weights."""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from components.cluster.cluster_selection import ClusterSelection, TwoFoldCounts
from components.cluster.clustering import Clusters
from components.cluster.component import Cluster
from components.cluster.token_grid import numbers_to_pixels, pixels_to_tokens, probability_to_pixels
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

PROPOSAL_IMAGES = 64
"""Images, evenly spread over the set, that proposals and clusters are selected on, at most."""
BYTES_PER_PIXEL = 48
"""Memory for an image that is being processed, about."""
_TIE = 0.01
"""Difference of Dice within which clusterings count as equally good; the first is taken."""
_CLUSTER_WEIGHTS = (0.0, 0.5, 1.0)
"""Weights that labels select from."""


@dataclass
class ForegroundModel:
    """Foreground probability of the images of a set."""

    clusters: Clusters
    cluster_selection: ClusterSelection
    proposal_selection: ProposalSelection
    agreement: dict[int, float]
    """Configured number of clusters -> cross-validated Dice of its foreground clusters with the reference."""
    cluster_weight: float
    model_weight: float
    proposal: Proposal | None = None
    """Proposal for all images, where labels selected it; None: `proposal_selection` selects one for each image."""

    def proposal_counts(self) -> dict[str, int]:
        """Name of each proposal that serves any of the fitted images -> number of them that it serves."""
        fitted = self.proposal_selection.fitted()
        return dict(Counter(one.name for one in fitted)) if self.proposal is None else {self.proposal.name: len(fitted)}

    def propose(self, image: np.ndarray) -> np.ndarray:
        """Classical foreground probability of an image (H, W, C): (H, W) float32."""
        return (self.proposal or self.proposal_selection).probability(image)

    def apply(self, image: np.ndarray, features: FeatureReader, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, C) -> foreground probability (H, W) float32, and each pixel's cluster plus 1 (H, W) uint8."""
        entry = features.entries[key]
        shares = self.clusters.assign(features.tokens(key))
        number = numbers_to_pixels(shares.argmax(axis=-1) + 1, entry)
        probability = np.zeros(image.shape[:2], np.float32)
        if self.cluster_weight > 0:
            tokens = shares @ self.cluster_selection.probability
            probability += self.cluster_weight * probability_to_pixels(tokens, entry, grey(image))
        if self.cluster_weight < 1:
            probability += (1 - self.cluster_weight) * self.propose(image)
        return _fuse(features.probability(key), probability, self.model_weight), number


def fit_to_proposals(
    stage: Cluster, images: ImageReader, features: FeatureReader, clusterings: dict[int, Clusters]
) -> ForegroundModel:
    """Fit the model without labels: the classical proposals select the foreground clusters.

    Of several clusterings, the one is taken whose foreground clusters, selected on half of the images, agree best with
    the proposals on the other half.
    """
    keys = evenly_spaced(features.keys(), PROPOSAL_IMAGES)
    proposals = ProposalSelection.fit((images.read(key) for key in keys), stage.foreground)

    def reference(key: str) -> tuple[list[np.ndarray], np.ndarray]:
        mask = (proposals.probability(images.read(key)) >= 0.5).astype(np.float32)
        return _shares(clusterings, features, key), pixels_to_tokens(mask, features.entries[key])

    with ThreadPoolExecutor(threads()) as pool:
        references = in_order(pool, reference, keys, lambda key: BYTES_PER_PIXEL * images.pixel_count(key))
        best, agreement, selection = _select_clusters(clusterings, references)
    weight = stage.cluster_weight * selection.dice
    return ForegroundModel(clusterings[best], selection, proposals, agreement, weight, stage.model_weight)


def fit_to_labels(
    images: ImageReader,
    features: FeatureReader,
    clusterings: dict[int, Clusters],
    truth: LabelReader,
    keys: list[str],
    model_weight: float,
) -> ForegroundModel:
    """Fit the model to the labels of a few images: they select foreground clusters, proposal and cluster weight."""

    def reference(key: str) -> tuple[list[np.ndarray], np.ndarray]:
        mask = (truth.mask(key) > 0).astype(np.float32)
        return _shares(clusterings, features, key), pixels_to_tokens(mask, features.entries[key])

    best, agreement, selection = _select_clusters(clusterings, map(reference, keys))
    proposals = ProposalSelection.fit(images.read(key) for key in evenly_spaced(features.keys(), PROPOSAL_IMAGES))
    candidates = [None, *proposals.candidates()]
    scores = np.zeros((len(candidates), len(_CLUSTER_WEIGHTS)))
    for key in keys:
        image, mask, model = images.read(key), truth.mask(key) > 0, features.probability(key)
        tokens = clusterings[best].assign(features.tokens(key)) @ selection.probability
        clusters = probability_to_pixels(tokens, features.entries[key], grey(image))
        for row, candidate in enumerate(candidates):
            proposed = (candidate or proposals).probability(image)
            for column, weight in enumerate(_CLUSTER_WEIGHTS):
                found = _fuse(model, weight * clusters + (1 - weight) * proposed, model_weight)
                scores[row, column] += dice_masks((found >= 0.5).astype(np.uint8), mask)
    row, column = divmod(int(scores.argmax()), len(_CLUSTER_WEIGHTS))
    weight, proposal = _CLUSTER_WEIGHTS[column], candidates[row]
    return ForegroundModel(clusterings[best], selection, proposals, agreement, weight, model_weight, proposal)


def _fuse(model: np.ndarray | None, probability: np.ndarray, model_weight: float) -> np.ndarray:
    """Weighted mean of a segmentor's probability, where there is one, and the probability without it."""
    return probability if model is None else model_weight * model + (1 - model_weight) * probability


def _shares(clusterings: dict[int, Clusters], features: FeatureReader, key: str) -> list[np.ndarray]:
    """Soft assignment of an image's tokens by each clustering."""
    tokens = features.tokens(key)
    return [clusters.assign(tokens) for clusters in clusterings.values()]


def _select_clusters(
    clusterings: dict[int, Clusters], references: Iterable[tuple[list[np.ndarray], np.ndarray]]
) -> tuple[int, dict[int, float], ClusterSelection]:
    """Select the clustering that agrees best with the reference, and its foreground clusters.

    references: for every image the soft assignments (..., k) by each clustering, and the reference (...) in [0, 1].
    Returns the number of clusters, the agreement by number of clusters, and the selection.
    """
    counts = {k: TwoFoldCounts(len(clusters)) for k, clusters in clusterings.items()}
    for shares, reference in references:
        for of_clustering, share in zip(counts.values(), shares, strict=True):
            of_clustering.add(share, reference)
    agreement = {k: of_clustering.cross_validated_dice() for k, of_clustering in counts.items()}
    best = next(k for k, value in agreement.items() if value >= max(agreement.values()) - _TIE)
    return best, agreement, counts[best].total().select()
