"""Calibrate the post-processing of a trained segmentor.

On images alone: the high threshold. On images that a person labelled: how borders are refined, and from which saddle on
two seeds are merged.
"""

import numpy as np

from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import LabelReader
from shared.artifacts.postprocessing import BorderRefinement, PostProcessing
from shared.imaging.tiling import middle
from shared.instances.label_image import typical
from shared.instances.object_filters import TYPICAL_PEAK_SHARE, component_peaks
from shared.instances.postprocess import Foreground, find_foreground, split_instances
from shared.instances.watershed import threshold
from shared.metrics.tally import Tally, tally
from shared.models.tiled_inference import TiledPredictor
from shared.system.log import log
from shared.system.progress import track

MERGE_THRESHOLDS = (0.8, 0.85, 0.75, 0.9, 0.7, 0.95, 0.6, 0.5, 0.4)
"""What is tried; the first of equals is taken."""
REFINEMENTS: tuple[BorderRefinement, ...] = ("none", "means", "edges")
SIDE_LABELLED = 1024
"""px; of a larger labelled image the middle is used."""
MAX_IMAGES, SIDE = 16, 384
"""Images that the high threshold is calibrated on, and px on the side of their middle."""


def calibrate_high_threshold(
    predictor: TiledPredictor, settings: PostProcessing, reader: ImageReader, keys: list[str]
) -> PostProcessing:
    """Set `high_threshold` to a share of the probability that a typical object reaches.

    Typical: the median over the objects' pixels in an image, and the median of these over the images. A network that is
    sure of nothing yet, as after a few steps, keeps its objects that way.
    """
    peaks = []
    for key in track(chosen := evenly_spaced(keys, MAX_IMAGES), "calibrate the high threshold", len(chosen)):
        probability = predictor(middle(reader.read(key), SIDE))[0]
        peak, area = component_peaks(threshold(probability, settings.foreground_threshold), probability)
        if len(peak):
            peaks.append(typical(peak, area))
    if not peaks:
        return settings
    return settings.model_copy(update={"high_threshold": round(TYPICAL_PEAK_SHARE * float(np.median(peaks)), 3)})


def calibrate_splitting(
    predictor: TiledPredictor, settings: PostProcessing, reader: ImageReader, labels: LabelReader, keys: list[str]
) -> PostProcessing:
    """Set `border_refinement` and `merge_threshold` to the values of the highest Dice + F1 on labelled images.

    Unchanged where no label image holds two objects.
    """
    cases: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for key in track(keys, "calibrate the splitting", len(keys)):
        if labels.entries[key].kind == "instances":
            image, truth = (middle(plane, SIDE_LABELLED) for plane in (reader.read(key), labels.mask(key)))
            cases.append((predictor(image), image, truth))
    if max((int(truth.max(initial=0)) for *_, truth in cases), default=0) < 2:
        return settings
    scores: dict[tuple[BorderRefinement, float], float] = {}
    for refinement in sorted(REFINEMENTS, key=lambda one: one != settings.border_refinement):
        refined = settings.model_copy(update={"border_refinement": refinement})
        found = [(find_foreground(maps.copy(), image, refined), truth) for maps, image, truth in cases]
        scores |= {(refinement, value): _score(found, refined, value) for value in MERGE_THRESHOLDS}
    refinement, value = max(scores, key=lambda choice: scores[choice])
    log.info("from %d labelled images: merge threshold %g, border refinement %s", len(cases), value, refinement)
    return settings.model_copy(update={"border_refinement": refinement, "merge_threshold": value})


def _score(found: list[tuple[Foreground, np.ndarray]], settings: PostProcessing, merge_threshold: float) -> float:
    tried = settings.model_copy(update={"merge_threshold": merge_threshold})
    numbers = sum((tally(truth, split_instances(one, tried)) for one, truth in found), Tally()).metrics()
    return numbers["dice"] + numbers["f1"]
