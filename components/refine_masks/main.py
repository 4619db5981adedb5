"""The E-step: turn soft proposals into pseudo-masks, and compare them with the previous round."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import cv2
import numpy as np

from components.refine_masks.component import RefineMasks
from components.refine_masks.model_parting import ModelParting
from components.refine_masks.page import Panel, make_page
from components.refine_masks.pseudo_masks import MIN_EDGE_SCORE, PseudoMask, refine_proposal
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import (
    NOTE_BORDER_REFINEMENT,
    NOTE_EDGE_SCORE,
    NOTE_HAND_LABELLED,
    NOTE_WATERSHED,
    LabelReader,
    LabelWriter,
)
from shared.artifacts.manifest import copy_payload
from shared.artifacts.postprocessing import BorderRefinement
from shared.imaging.gradients import edge_score, gradient
from shared.imaging.grey import grey
from shared.metrics.pixels import dice_masks
from shared.stage.declaration import Result
from shared.system.devices import threads
from shared.system.errors import UserError
from shared.system.parallel import in_order
from shared.system.progress import track

EDGE_SCORE_IMAGES = 32
"""Images, evenly spread, whose proposals decide between watershed and local means, at most."""
_PANEL_IMAGES = 3
_BYTES_PER_PIXEL = 32
"""Memory for an image that is being processed, about."""
_METHODS: dict[BorderRefinement, str] = {
    "edges": "watershed of the image gradient",
    "means": "local means of foreground and background",
    "none": "as proposed",
}
"""Names of border refinements on the page."""


@dataclass
class _Inputs:
    """Readers of the stage's inputs."""

    images: ImageReader
    clusters: LabelReader
    previous: LabelReader
    parting: ModelParting | None = None
    """Finds the instances of a segmentor; None where the image parts the masks."""

    @property
    def hand_labelled(self) -> list[str]:
        """Keys of the images with hand-labelled masks."""
        return list(self.clusters.info.notes.get(NOTE_HAND_LABELLED, []))

    def cost(self, key: str) -> int:
        """Bytes for an image while it is processed, about."""
        return _BYTES_PER_PIXEL * self.images.pixel_count(key)


@dataclass
class _Statistics:
    """Figures of the images that were written."""

    agreement: list[float] = field(default_factory=list)
    """Dice with the previous masks; empty in the first round."""
    foreground_share: list[float] = field(default_factory=list)
    ignored_share: list[float] = field(default_factory=list)
    min_area: list[int] = field(default_factory=list)
    """px², smallest region kept."""

    def metrics(self) -> dict[str, float]:
        """Summarise over the images. Without previous masks there is no agreement."""
        agreement = {"agreement": float(np.mean(self.agreement))} if self.agreement else {}
        return agreement | {
            "foreground_share": float(np.mean(self.foreground_share)),
            "ignored_share": float(np.mean(self.ignored_share)),
            "min_area": float(np.median(self.min_area)),
        }


def run(stage: RefineMasks) -> Result:
    """Refine every proposal and compare the result with the previous round."""
    cv2.setNumThreads(threads())
    if stage.skip:
        return _pass_through(stage)
    inputs = _Inputs(ImageReader(stage.images), LabelReader(stage.clusters), LabelReader(stage.previous))
    keys = inputs.clusters.keys()
    if not keys:
        with LabelWriter(stage.labels, "pseudo"):
            pass
        values: dict[str, float | int | bool | str] = {"agreement": 0.0, "noise": 0.0, "proposed_area": 0.0}
        return Result(values=values, skipped="there are no proposals")
    foreign = next((key for key in keys if key not in inputs.images.entries), None)
    if foreign is not None:
        raise UserError(f"--clusters: image {foreign!r} is not in --images; give the ImageSet they were made from")
    score = _edge_score(inputs, evenly_spaced(keys, EDGE_SCORE_IMAGES))
    refinement = _border_refinement(stage, score, inputs.previous)
    if stage.refine and (stage.part_by == "model" or (stage.part_by == "auto" and refinement == "edges")):
        inputs.parting = ModelParting.open(stage.model)
    statistics, panels = _write(stage, inputs, refinement, score)
    by_watershed = refinement == "edges"
    metrics = statistics.metrics() | {"edge_score": score, "watershed": float(by_watershed)}
    noise = stage.expected_noise if by_watershed and not inputs.hand_labelled else 0.0
    return Result(
        metrics=metrics,
        values={
            "agreement": metrics.get("agreement", 0.0),
            "noise": noise,
            "proposed_area": metrics["foreground_share"],
        },
        page=make_page(_METHODS[refinement], metrics, panels),
    )


def _border_refinement(stage: RefineMasks, score: float, previous: LabelReader) -> BorderRefinement:
    """Decide how borders are moved to the edges in the images: one method for the whole set and all rounds."""
    if not stage.refine or stage.watershed == "never":
        return "none"
    by_watershed = score < MIN_EDGE_SCORE or stage.watershed == "always"
    if stage.watershed == "auto" and previous.entries:  # the first round decides: later masks follow edges better
        by_watershed = bool(previous.info.notes.get(NOTE_WATERSHED, by_watershed))
    return "edges" if by_watershed else "means"


def _write(
    stage: RefineMasks, inputs: _Inputs, refinement: BorderRefinement, score: float
) -> tuple[_Statistics, list[Panel]]:
    """Write the pseudo-masks of all images."""
    keys, labelled = inputs.clusters.keys(), inputs.hand_labelled
    shown, statistics, panels = set(evenly_spaced(keys, _PANEL_IMAGES)), _Statistics(), []
    notes = {
        NOTE_EDGE_SCORE: score,
        NOTE_WATERSHED: refinement == "edges",
        NOTE_BORDER_REFINEMENT: refinement,
        NOTE_HAND_LABELLED: labelled,
    }

    def one(key: str) -> tuple[str, PseudoMask, Panel | None]:
        image = inputs.images.read(key)
        refined = _pseudo_mask(stage, inputs, key, image, refinement)
        if key not in shown:
            return key, refined, None
        return key, refined, Panel(key, image, (inputs.clusters.mask(key) > 0).astype(np.uint8), refined)

    with LabelWriter(stage.labels, "pseudo", notes) as writer, ThreadPoolExecutor(threads()) as pool:
        refined_images = in_order(pool, one, keys, inputs.cost)
        for key, refined, panel in track(refined_images, "refine", len(keys)):
            kind = "instances" if stage.refine and key not in labelled else inputs.clusters.entries[key].kind
            writer.add(key, refined.labels, kind, refined.conf)
            _count(statistics, refined, inputs.previous, key)
            if panel:
                panels.append(panel)
    return statistics, panels


def _pseudo_mask(
    stage: RefineMasks, inputs: _Inputs, key: str, image: np.ndarray, refinement: BorderRefinement
) -> PseudoMask:
    """Pseudo-mask of one image (H, W, C); a hand-labelled mask stays as it is."""
    clusters = inputs.clusters
    if not stage.refine:
        mask = clusters.mask(key)
        refined = PseudoMask(mask, np.full(mask.shape, 255, np.uint8), 0)
    else:
        refined = refine_proposal(
            clusters.probability(key),
            image,
            border_refinement=refinement,
            marker_threshold=stage.marker_threshold,
            ignore_band=stage.ignore_band_px,
            min_area=None if stage.min_area_px == "auto" else stage.min_area_px,
            instances=None if inputs.parting is None else inputs.parting(image),
        )
    if key in inputs.hand_labelled:
        return PseudoMask(clusters.mask(key), clusters.conf(key), refined.min_area)
    return refined


def _count(statistics: _Statistics, refined: PseudoMask, previous: LabelReader, key: str) -> None:
    """Add the figures of one image."""
    if key in previous.entries:
        statistics.agreement.append(dice_masks(refined.labels, previous.mask(key)))
    statistics.foreground_share.append(float((refined.labels > 0).mean()))
    statistics.ignored_share.append(float((refined.conf == 0).mean()))
    statistics.min_area.append(refined.min_area)


def _edge_score(inputs: _Inputs, keys: list[str]) -> float:
    """Median edge score of the proposals of some images; 0 where none has a border."""

    def one(key: str) -> float | None:
        mask = (inputs.clusters.mask(key) > 0).astype(np.uint8)
        return edge_score(mask, gradient(grey(inputs.images.read(key))))

    with ThreadPoolExecutor(threads()) as pool:
        scores = [score for score in in_order(pool, one, keys, inputs.cost) if score is not None]
    return float(np.median(scores)) if scores else 0.0


def _pass_through(stage: RefineMasks) -> Result:
    """Copy the payload of `previous`."""
    copy_payload(stage.previous, stage.labels)
    values: dict[str, float | int | bool | str] = {"agreement": 1.0, "noise": 0.0, "proposed_area": 0.0}
    return Result(metrics={"agreement": 1.0}, values=values, skipped="the EM loop has ended")
