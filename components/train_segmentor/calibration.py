"""Calibrate the post-processing of a trained segmentor.

The high threshold is calibrated on images alone. What the target's `GRID` names is searched on hand-labelled images,
where there are any.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import LabelReader
from shared.artifacts.postprocessing import BorderRefinement, PostProcessing
from shared.imaging.tiling import centre_crop
from shared.instances.label_image import area_weighted_median
from shared.instances.object_filters import TYPICAL_PEAK_SHARE, component_peaks
from shared.instances.postprocess import threshold
from shared.metrics.tally import Tally, tally
from shared.models.tiled_inference import TiledPredictor
from shared.system.log import log
from shared.system.progress import track
from shared.targets import Target

EDGE_MERGE_THRESHOLD, EDGE_MIN_AREA_SHARE = 0.75, 0.2
"""`merge_threshold` and `min_area_share` where the borders of the pseudo-masks were found by watershed: large cells are
cut otherwise, and smaller objects there are mostly fragments of cells (RESULTS.md, "Constants")."""
LABELLED_SIDE = 1024
"""Side of the middle that is used of a hand-labelled image, px."""
MAX_IMAGES, IMAGE_SIDE = 16, 384
"""Number of images for the high threshold, and side of the middle that is used of each, px."""


@dataclass(frozen=True)
class Tuned:
    """The settings that were tried on labelled images."""

    names: list[str]
    """Fields of the post-processing."""
    scores: dict[tuple[Any, ...], float]
    """Values of these fields -> Dice + F1."""
    images: int
    """Number of labelled images."""

    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """Setting that is a number -> (value, best score with it), ascending."""
        found = {}
        for place, name in enumerate(self.names):
            best: dict[Any, float] = {}
            for choice, score in self.scores.items():
                best[choice[place]] = max(score, best.get(choice[place], score))
            if all(isinstance(value, float) for value in best):
                found[name] = sorted(best.items())
        return found


def fit_to_refinement(settings: PostProcessing, refinement: BorderRefinement) -> PostProcessing:
    """Set the border refinement to that of the pseudo-masks, with the splitting and filling that suit it."""
    of_edges = {"merge_threshold": EDGE_MERGE_THRESHOLD, "min_area_share": EDGE_MIN_AREA_SHARE}
    changes = {"border_refinement": refinement} | (of_edges if refinement == "edges" else {"pale_centres": "fill"})
    return settings.model_copy(update=changes)


def calibrate_high_threshold(
    predictor: TiledPredictor, target: Target, settings: PostProcessing, reader: ImageReader, keys: list[str]
) -> PostProcessing:
    """Set `high_threshold` to a share of the peak probability of a typical object.

    Typical: the median over the objects' pixels in an image, then the median over the images. A network that is still
    uncertain, as after a few steps, thereby keeps its objects.
    """
    peaks = []
    for key in track(chosen := evenly_spaced(keys, MAX_IMAGES), "calibrate the high threshold", len(chosen)):
        probability = target.probability(predictor(centre_crop(reader.read(key), IMAGE_SIDE)), settings)
        peak, area = component_peaks(threshold(probability, settings.foreground_threshold), probability)
        if len(peak):
            peaks.append(area_weighted_median(peak, area))
    if not peaks:
        return settings
    return settings.model_copy(update={"high_threshold": round(TYPICAL_PEAK_SHARE * float(np.median(peaks)), 3)})


def tune(
    predictor: TiledPredictor,
    target: Target,
    settings: PostProcessing,
    reader: ImageReader,
    labels: LabelReader,
    keys: list[str],
) -> tuple[PostProcessing, Tuned | None]:
    """Set what the target's `GRID` names to the values with the highest Dice + F1 on labelled images.

    Without a label image of two objects or more, the settings are returned unchanged.
    """
    cases: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for key in track(keys, "predict labelled images", len(keys)):
        if labels.entries[key].kind == "instances":
            image, truth = (centre_crop(plane, LABELLED_SIDE) for plane in (reader.read(key), labels.mask(key)))
            cases.append((predictor(image), image, truth))
    if max((int(truth.max(initial=0)) for *_, truth in cases), default=0) < 2:
        return settings, None
    names = list(target.GRID)
    scores: dict[tuple[Any, ...], float] = {}
    present = settings.model_dump()
    choices: list[tuple[Any, ...]] = list(
        itertools.product(*(_first(present[name], target.GRID[name]) for name in names))
    )
    for choice in track(choices, "search thresholds", len(choices)):
        tried = settings.model_copy(update=dict(zip(names, choice, strict=True)))
        scores[choice] = _dice_and_f1(target, tried, cases)
    chosen: tuple[Any, ...] = max(scores, key=lambda choice: scores[choice])
    best = dict(zip(names, chosen, strict=True))
    log.info("from %d labelled images: %s", len(cases), ", ".join(f"{name} {value}" for name, value in best.items()))
    return settings.model_copy(update=best), Tuned(names, scores, len(cases))


def _first(value: Any, values: tuple[Any, ...]) -> list[Any]:
    """Put a value first among others, so that it wins where it is as good as they are."""
    return sorted(values, key=lambda other: other != value)


def _dice_and_f1(
    target: Target, settings: PostProcessing, cases: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> float:
    """Dice + F1 of what the target decodes from maps of images, against their label images."""
    total = Tally()
    for maps, image, truth in cases:
        total += tally(truth, target.decode(maps.copy(), image, settings).labels)
    metrics = total.metrics()
    return metrics["dice"] + metrics["f1"]
