"""Group the features of the whole set and say which groups are cells."""

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from components.cluster.clustering import Clusters, fit, sample_tokens
from components.cluster.component import Cluster
from components.cluster.foreground_model import HELD, Rule, by_labels, by_proposal
from components.cluster.page import Panel, make_page
from shared.artifacts.feature_set import FeatureReader
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import LABELLED, LabelReader, LabelWriter, learned_labels, soft_mask
from shared.stage.declaration import Result
from shared.system.devices import threads
from shared.system.errors import UserError
from shared.system.log import log
from shared.system.parallel import in_order
from shared.system.progress import track

SEVERAL = (6, 12, 24, 48)
"""Numbers of clusters that are tried where none is asked for."""
PANELS = 3


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
    tried = _clusterings(stage, features, keys)
    if stage.use_labels:
        truth = LabelReader(stage.truth)
        labelled = _labelled(stage, truth, features)
        if not labelled:
            raise UserError(
                "--use_labels: --truth holds no label image of the images that have features; "
                "add labelled images to the source, or set --use_labels 0"
            )
        rule = by_labels(images, features, tried, truth, labelled, stage.model_weight)
    else:
        rule = by_proposal(images, features, tried, stage.cluster_weight, stage.model_weight)
    log.info(
        "proposal by %s; of %d clusters these are foreground: %s",
        ", ".join(rule.proposals()),
        len(rule.clusters),
        rule.foreground.clusters(),
    )
    return _write(stage, rule, images, features, keys)


def _clusterings(stage: Cluster, features: FeatureReader, keys: list[str]) -> dict[int, Clusters]:
    """Number of clusters asked for -> the clusters."""
    tokens = sample_tokens(features, keys, stage.seed)
    components = None if stage.pca_components == "all" else stage.pca_components
    return {
        k: fit(tokens, k=k, components=components, whitening=stage.whitening, seed=stage.seed)
        for k in (SEVERAL if stage.k == "auto" else (stage.k,))
    }


def _labelled(stage: Cluster, truth: LabelReader, features: FeatureReader) -> list[str]:
    """The images whose labels may be used."""
    return learned_labels(truth, features.entries, stage.use_labels)


def _write(stage: Cluster, rule: Rule, images: ImageReader, features: FeatureReader, keys: list[str]) -> Result:
    shown, panels, area = set(evenly_spaced(keys, PANELS)), [], []
    truth = LabelReader(stage.truth)
    known = _labelled(stage, truth, features)
    notes = {
        "proposals": rule.proposals(),
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
        "separability": float(np.median([one.separability for one in rule.choice.taken()])),
        "clusters": len(rule.clusters),
        "cluster_dice": rule.foreground.dice,
        "cluster_weight": rule.cluster_weight,
    }
    return Result(metrics=metrics, page=make_page(rule, panels))


def _empty(stage: Cluster, reason: str) -> Result:
    with LabelWriter(stage.clusters, "pseudo"):
        pass
    return Result(skipped=reason)
