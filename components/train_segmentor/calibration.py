"""Calibrate the post-processing of a trained segmentor.

The high threshold is calibrated on images alone. Border refinement and merge threshold are calibrated on hand-labelled
images, where there are any.
"""

import numpy as np

from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import LabelReader
from shared.artifacts.postprocessing import BorderRefinement, PostProcessing
from shared.imaging.tiling import centre_crop
from shared.instances.label_image import area_weighted_median
from shared.instances.object_filters import TYPICAL_PEAK_SHARE, component_peaks
from shared.instances.postprocess import Foreground, find_foreground, split_instances, threshold
from shared.metrics.tally import Tally, tally
from shared.models.tiled_inference import TiledPredictor
from shared.system.log import log
from shared.system.progress import track

MERGE_THRESHOLDS = (0.8, 0.85, 0.75, 0.9, 0.7, 0.95, 0.6, 0.5, 0.4)
"""Values that are tried; the first of equally good ones is taken."""
REFINEMENTS: tuple[BorderRefinement, ...] = ("none", "means", "edges")
EDGE_MERGE_THRESHOLD, EDGE_MIN_AREA_SHARE = 0.75, 0.2
"""`merge_threshold` and `min_area_share` where the borders of the pseudo-masks were found by watershed: large cells are
cut otherwise, and smaller objects there are mostly fragments of cells (RESULTS.md, "Constants")."""
LABELLED_SIDE = 1024
"""Side of the middle that is used of a hand-labelled image, px."""
MAX_IMAGES, IMAGE_SIDE = 16, 384
"""Number of images for the high threshold, and side of the middle that is used of each, px."""


def fit_to_refinement(settings: PostProcessing, refinement: BorderRefinement) -> PostProcessing:
    """Set the border refinement to that of the pseudo-masks, with the splitting and filling that suit it."""
    of_edges = {"merge_threshold": EDGE_MERGE_THRESHOLD, "min_area_share": EDGE_MIN_AREA_SHARE}
    changes = {"border_refinement": refinement} | (of_edges if refinement == "edges" else {"pale_centres": "fill"})
    return settings.model_copy(update=changes)


def calibrate_high_threshold(
    predictor: TiledPredictor, settings: PostProcessing, reader: ImageReader, keys: list[str]
) -> PostProcessing:
    """Set `high_threshold` to a share of the peak probability of a typical object.

    Typical: the median over the objects' pixels in an image, then the median over the images. A network that is still
    uncertain, as after a few steps, thereby keeps its objects.
    """
    peaks = []
    for key in track(chosen := evenly_spaced(keys, MAX_IMAGES), "calibrate the high threshold", len(chosen)):
        probability = predictor(centre_crop(reader.read(key), IMAGE_SIDE))[0]
        peak, area = component_peaks(threshold(probability, settings.foreground_threshold), probability)
        if len(peak):
            peaks.append(area_weighted_median(peak, area))
    if not peaks:
        return settings
    return settings.model_copy(update={"high_threshold": round(TYPICAL_PEAK_SHARE * float(np.median(peaks)), 3)})


def calibrate_splitting(
    predictor: TiledPredictor, settings: PostProcessing, reader: ImageReader, labels: LabelReader, keys: list[str]
) -> PostProcessing:
    """Set `border_refinement` and `merge_threshold` to the values with the highest Dice + F1 on labelled images.

    Without a label image of two objects or more, the settings are returned unchanged.
    """
    cases: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for key in track(keys, "calibrate the splitting", len(keys)):
        if labels.entries[key].kind == "instances":
            image, truth = (centre_crop(plane, LABELLED_SIDE) for plane in (reader.read(key), labels.mask(key)))
            cases.append((predictor(image), image, truth))
    if max((int(truth.max(initial=0)) for *_, truth in cases), default=0) < 2:
        return settings
    scores: dict[tuple[BorderRefinement, float], float] = {}
    for refinement in sorted(REFINEMENTS, key=lambda one: one != settings.border_refinement):
        refined = settings.model_copy(update={"border_refinement": refinement})
        found = [(find_foreground(maps.copy(), image, refined), truth) for maps, image, truth in cases]
        scores |= {(refinement, value): _dice_and_f1(found, refined, value) for value in MERGE_THRESHOLDS}
    refinement, value = max(scores, key=lambda choice: scores[choice])
    log.info("from %d labelled images: merge threshold %g, border refinement %s", len(cases), value, refinement)
    return settings.model_copy(update={"border_refinement": refinement, "merge_threshold": value})


def _dice_and_f1(found: list[tuple[Foreground, np.ndarray]], settings: PostProcessing, merge_threshold: float) -> float:
    """Dice + F1 of the foregrounds, split with `merge_threshold`, against their label images."""
    tried = settings.model_copy(update={"merge_threshold": merge_threshold})
    metrics = sum((tally(truth, split_instances(one, tried)) for one, truth in found), Tally()).metrics()
    return metrics["dice"] + metrics["f1"]
