"""Cluster the features of a set, and write a soft foreground mask of every image."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import cv2
import numpy as np

from components.cluster.clustering import Clusters, fit_clusters, sample_tokens
from components.cluster.component import Cluster
from components.cluster.foreground_model import BYTES_PER_PIXEL, ForegroundModel, fit_to_labels, fit_to_proposals
from components.cluster.page import Panel, make_page
from shared.artifacts.feature_set import FeatureReader
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import (
    NOTE_CLUSTER_WEIGHT,
    NOTE_FOREGROUND_CLUSTERS,
    NOTE_HAND_LABELLED,
    NOTE_PROPOSALS,
    LabelReader,
    LabelWriter,
    soft_mask,
)
from shared.data.labelled_images import learned_labels
from shared.stage.declaration import Result
from shared.system.devices import threads
from shared.system.errors import UserError
from shared.system.log import log
from shared.system.parallel import in_order
from shared.system.progress import track

CANDIDATE_K = (6, 12, 24, 48)
"""Numbers of clusters that are compared with `k` auto."""
_PANEL_IMAGES = 3


@dataclass
class _Inputs:
    """Readers of the stage's inputs."""

    images: ImageReader
    features: FeatureReader
    truth: LabelReader
    labelled: list[str]
    """Keys of the images whose labels may be used."""


@dataclass
class _ImageMask:
    """Output of one image."""

    key: str
    mask: np.ndarray
    """(H, W), foreground or hand-labelled instances."""
    conf: np.ndarray
    """(H, W) uint8"""
    cluster: np.ndarray
    """(H, W) uint8: cluster plus 1."""
    panel: Panel | None
    """What the page shows of the image, if it is shown."""


@dataclass
class _Written:
    """What the output's metrics and page need."""

    foreground_shares: list[float] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)


def run(stage: Cluster) -> Result:
    """Fit k-means, select the foreground clusters, and write a soft foreground mask of every image."""
    cv2.setNumThreads(threads())
    if stage.skip:
        return _empty(stage, "the EM loop has ended")
    images, features, truth = ImageReader(stage.images), FeatureReader(stage.features), LabelReader(stage.truth)
    keys = features.keys()
    if not keys:
        return _empty(stage, "the FeatureSet has no images")
    foreign = next((key for key in keys if key not in images.entries), None)
    if foreign is not None:
        raise UserError(f"--features: image {foreign!r} is not in --images; give the ImageSet they were extracted from")
    inputs = _Inputs(images, features, truth, learned_labels(truth, features.entries, stage.use_labels))
    model = _fit(stage, inputs)
    log.info(
        "proposals: %s; foreground clusters: %s of %d",
        ", ".join(model.proposal_counts()),
        model.cluster_selection.foreground_clusters(),
        len(model.clusters),
    )
    written = _write(stage, model, inputs)
    return Result(metrics=_metrics(model, written), page=make_page(model, written.panels))


def _fit(stage: Cluster, inputs: _Inputs) -> ForegroundModel:
    clusterings = _clusterings(stage, inputs.features)
    images, features = inputs.images, inputs.features
    if not stage.use_labels:
        return fit_to_proposals(stage, images, features, clusterings)
    if not inputs.labelled:
        raise UserError(
            "--use_labels: --truth has no label image of the images that have features; "
            "add labelled images to the source, or set --use_labels 0"
        )
    return fit_to_labels(images, features, clusterings, inputs.truth, inputs.labelled, stage.model_weight)


def _clusterings(stage: Cluster, features: FeatureReader) -> dict[int, Clusters]:
    """Configured number of clusters -> the clusters."""
    tokens = sample_tokens(features, features.keys(), stage.seed)
    components = None if stage.pca_components == "all" else stage.pca_components
    return {
        k: fit_clusters(tokens, k=k, pca_components=components, whitening=stage.whitening, seed=stage.seed)
        for k in (CANDIDATE_K if stage.k == "auto" else (stage.k,))
    }


def _write(stage: Cluster, model: ForegroundModel, inputs: _Inputs) -> _Written:
    """Write the masks of all images."""
    keys = inputs.features.keys()
    shown, written = set(evenly_spaced(keys, _PANEL_IMAGES)), _Written()
    notes = {
        NOTE_PROPOSALS: model.proposal_counts(),
        NOTE_FOREGROUND_CLUSTERS: model.cluster_selection.foreground_clusters(),
        NOTE_CLUSTER_WEIGHT: model.cluster_weight,
        NOTE_HAND_LABELLED: inputs.labelled,
    }

    def one(key: str) -> _ImageMask:
        return _mask(model, inputs, key, key in shown)

    with LabelWriter(stage.clusters, "pseudo", notes) as writer, ThreadPoolExecutor(threads()) as pool:
        masks = in_order(pool, one, keys, lambda key: BYTES_PER_PIXEL * inputs.images.pixel_count(key))
        for found in track(masks, "cluster", len(keys)):
            kind = inputs.truth.entries[found.key].kind if found.key in inputs.labelled else "foreground"
            writer.add(found.key, found.mask, kind, found.conf, {"cluster": found.cluster})
            written.foreground_shares.append(float((found.mask > 0).mean()))
            if found.panel:
                written.panels.append(found.panel)
    return written


def _mask(model: ForegroundModel, inputs: _Inputs, key: str, shown: bool) -> _ImageMask:
    """Mask of one image: hand-labelled where its labels may be used, else by the model."""
    image = inputs.images.read(key)
    probability, cluster = model.apply(image, inputs.features, key)
    if key in inputs.labelled:
        probability = inputs.truth.probability(key)
        mask, conf = inputs.truth.mask(key), inputs.truth.conf(key)
    else:
        mask, conf = soft_mask(probability)
    return _ImageMask(key, mask, conf, cluster, Panel(key, image, cluster, probability) if shown else None)


def _metrics(model: ForegroundModel, written: _Written) -> dict[str, float]:
    return {
        "foreground_share": float(np.mean(written.foreground_shares)),
        "separability": float(np.median([one.separability for one in model.proposal_selection.fitted()])),
        "clusters": len(model.clusters),
        "cluster_dice": model.cluster_selection.dice,
        "cluster_weight": model.cluster_weight,
    }


def _empty(stage: Cluster, reason: str) -> Result:
    with LabelWriter(stage.clusters, "pseudo"):
        pass
    return Result(skipped=reason)
