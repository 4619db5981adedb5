"""Group the features of the whole set and say which groups are cells."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from components.cluster import grid
from components.cluster.component import Cluster
from components.cluster.foreground import Foreground, Tally
from components.cluster.kmeans import Clusters, fit, sample_tokens
from components.cluster.page import Panel, make_page
from shared.devices import threads
from shared.errors import UserError
from shared.features import FeatureReader
from shared.images import ImageReader
from shared.keys import spread
from shared.labels import LABELLED, LabelReader, LabelWriter, soft_mask
from shared.log import log
from shared.parallel import in_order
from shared.progress import track
from shared.proposals import Proposal, candidates, choose, grey
from shared.stage import Result

JUDGED_IMAGES = 64
"""Images, evenly spread over the set, that proposals and clusters are judged on."""
PANELS = 3
HELD = 48
"""Bytes for each px of an image while it is worked on, about."""


@dataclass
class Rule:
    """How the foreground probability of an image is made: decided once for the set."""

    clusters: Clusters
    foreground: Foreground
    proposal: Proposal
    cluster_weight: float
    model_weight: float

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
            probability += (1 - self.cluster_weight) * self.proposal.probability(image)
        model = features.probability(key)
        if model is not None:
            probability = self.model_weight * model + (1 - self.model_weight) * probability
        return probability, number


def run(stage: Cluster) -> Result:
    """Fit k-means, choose the foreground clusters, and write a soft foreground mask of every image."""
    cv2.setNumThreads(threads())
    if stage.skip:
        return _empty(stage, "the EM loop has converged")
    images, features = ImageReader(stage.images), FeatureReader(stage.features)
    keys = features.keys()
    if not keys:
        return _empty(stage, "the FeatureSet holds no image")
    foreign = next((key for key in keys if key not in images.entries), None)
    if foreign is not None:
        raise UserError(f"--features: image {foreign!r} is not in --images; give the ImageSet they were extracted from")
    clusters = fit(
        sample_tokens(features, keys, stage.seed),
        k=stage.k,
        components=stage.components,
        whitening=stage.whitening,
        seed=stage.seed,
    )
    if stage.use_labels:
        rule = _by_labels(stage, images, features, clusters)
    else:
        rule = _by_proposal(stage, images, features, clusters)
    log.info("proposal by %s; foreground clusters %s", rule.proposal.kind, rule.foreground.clusters())
    return _write(stage, rule, images, features, keys)


def _by_proposal(stage: Cluster, images: ImageReader, features: FeatureReader, clusters: Clusters) -> Rule:
    """Label-free: the classical proposal says which clusters are foreground, and stays in the fusion."""
    keys = spread(features.keys(), JUDGED_IMAGES)
    proposal = choose(candidates(images.read(key) for key in keys))
    tally = Tally(len(clusters))

    def one(key: str) -> tuple[np.ndarray, np.ndarray]:
        mask = (proposal.probability(images.read(key)) >= 0.5).astype(np.float32)
        return clusters.assign(features.tokens(key)), grid.to_tokens(mask, features.entries[key])

    with ThreadPoolExecutor(threads()) as pool:
        for found in in_order(pool, one, keys, lambda key: HELD * images.pixels(key)):
            tally.add(*found)
    foreground = tally.judge()
    return Rule(clusters, foreground, proposal, stage.cluster_weight * foreground.dice, stage.model_weight)


def _by_labels(stage: Cluster, images: ImageReader, features: FeatureReader, clusters: Clusters) -> Rule:
    """Few labels: they say which clusters are foreground, which classical proposal is best, and what weighs more."""
    truth = LabelReader(stage.truth)
    keys = _labelled(stage, truth, features)
    if not keys:
        raise UserError(
            "--use_labels: --truth holds no label image of the images that have features; "
            "add labelled images to the source, or set --use_labels 0"
        )
    tally = Tally(len(clusters))
    for key in keys:
        mask = (truth.mask(key) > 0).astype(np.float32)
        tally.add(clusters.assign(features.tokens(key)), grid.to_tokens(mask, features.entries[key]))
    foreground = tally.judge()
    fitted = candidates(images.read(key) for key in spread(features.keys(), JUDGED_IMAGES))
    rules = [
        Rule(clusters, foreground, proposal, weight, stage.model_weight)
        for proposal in fitted.values()
        for weight in (0.0, 0.5, 1.0)
    ]
    return max(rules, key=lambda rule: _dice(rule, images, features, truth, keys))


def _labelled(stage: Cluster, truth: LabelReader, features: FeatureReader) -> list[str]:
    """The images whose labels may be used."""
    return [key for key in sorted(truth.entries) if key in features.entries][: stage.use_labels]


def _dice(rule: Rule, images: ImageReader, features: FeatureReader, truth: LabelReader, keys: list[str]) -> float:
    """Mean Dice of a rule with the truth of some images."""
    scores = []
    for key in keys:
        mask = truth.mask(key) > 0
        found = rule.apply(images.read(key), features, key)[0] >= 0.5
        scores.append(2 * (mask & found).sum() / max(1, mask.sum() + found.sum()))
    return float(np.mean(scores))


def _write(stage: Cluster, rule: Rule, images: ImageReader, features: FeatureReader, keys: list[str]) -> Result:
    shown, panels, area = set(spread(keys, PANELS)), [], []
    truth = LabelReader(stage.truth)
    known = _labelled(stage, truth, features)
    notes = {
        "proposal": rule.proposal.model_dump(mode="json"),
        "foreground_clusters": rule.foreground.clusters(),
        "cluster_weight": rule.cluster_weight,
        LABELLED: known,
    }

    def one(key: str) -> tuple[str, np.ndarray, np.ndarray, np.ndarray, Panel | None]:
        image = images.read(key)
        probability, number = rule.apply(image, features, key)
        if key in known:
            probability = truth.probability(key)
            mask, conf = truth.mask(key), truth.conf(key)
        else:
            mask, conf = soft_mask(probability)
        return key, mask, conf, number, Panel(key, image, number, probability) if key in shown else None

    with LabelWriter(stage.clusters, "pseudo", notes) as writer, ThreadPoolExecutor(threads()) as pool:
        each = in_order(pool, one, keys, lambda key: HELD * images.pixels(key))
        for key, mask, conf, number, panel in track(each, "cluster", len(keys)):
            writer.add(key, mask, truth.entries[key].kind if key in known else "foreground", conf, {"cluster": number})
            area.append(float((mask > 0).mean()))
            if panel:
                panels.append(panel)
    metrics = {
        "foreground_share": float(np.mean(area)),
        "separability": rule.proposal.separability,
        "cluster_dice": rule.foreground.dice,
        "cluster_weight": rule.cluster_weight,
    }
    page = make_page(rule.proposal, rule.foreground, rule.cluster_weight, panels)
    return Result(metrics=metrics, page=page)


def _empty(stage: Cluster, reason: str) -> Result:
    with LabelWriter(stage.clusters, "pseudo"):
        pass
    return Result(skipped=reason)
