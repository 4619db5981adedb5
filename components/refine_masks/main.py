"""The E-step: pseudo-masks from soft proposals."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from components.refine_masks.component import RefineMasks
from components.refine_masks.pseudo_masks import FOLLOWS_EDGES, Refined, refine
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import BORDER_REFINEMENT, LABELLED, LabelReader, LabelWriter
from shared.artifacts.manifest import copy_payload
from shared.imaging.gradients import edge_score, gradient
from shared.imaging.grey import grey
from shared.imaging.overlays import outline, to_rgb8
from shared.instances.border_refinement import BorderRefinement
from shared.metrics.pixels import dice_masks
from shared.reporting.page import Page
from shared.stage.declaration import Result
from shared.system.devices import threads
from shared.system.errors import UserError
from shared.system.parallel import in_order
from shared.system.progress import track

JUDGED_IMAGES = 32
"""Images, evenly spread, whose proposals say whether the set needs the watershed."""
PANELS = 3
HELD = 32
"""Bytes for each px of an image while it is worked on, about."""
WATERSHED = "watershed"
"""Note of the labels: whether their borders were found by the watershed."""


@dataclass
class Panel:
    """One image of the page."""

    key: str
    image: np.ndarray
    proposal: np.ndarray
    """(H, W) uint8 {0, 1}"""
    refined: Refined


def run(stage: RefineMasks) -> Result:
    """Refine every proposal and compare the result with the round before."""
    cv2.setNumThreads(threads())
    if stage.skip:
        return _pass_through(stage)
    images, clusters, previous = ImageReader(stage.images), LabelReader(stage.clusters), LabelReader(stage.previous)
    keys = clusters.keys()
    if not keys:
        with LabelWriter(stage.labels, "pseudo"):
            pass
        return Result(values={"agreement": 0.0, "noise": 0.0}, skipped="there are no proposals")
    foreign = next((key for key in keys if key not in images.entries), None)
    if foreign is not None:
        raise UserError(f"--clusters: image {foreign!r} is not in --images; give the ImageSet they were made from")
    score = _edge_score(images, clusters, evenly_spaced(keys, JUDGED_IMAGES))
    sharpen = _sharpen(stage, score, previous)
    by_edges = sharpen == "edges"
    agreement, areas, smallest, ignored, panels = [], [], [], [], []
    shown = set(evenly_spaced(keys, PANELS))
    labelled = list(clusters.info.notes.get(LABELLED, []))
    notes = {"edge_score": score, WATERSHED: by_edges, BORDER_REFINEMENT: sharpen, LABELLED: labelled}

    def one(key: str) -> tuple[str, Refined, Panel | None]:
        image = images.read(key)
        refined = _refined(stage, clusters, key, image, sharpen)
        if key in labelled:  # drawn by a person: nothing to refine
            refined = Refined(clusters.mask(key), clusters.conf(key), refined.min_area)
        mask = (clusters.mask(key) > 0).astype(np.uint8) if key in shown else None
        return key, refined, None if mask is None else Panel(key, image, mask, refined)

    with LabelWriter(stage.labels, "pseudo", notes) as writer, ThreadPoolExecutor(threads()) as pool:
        each = in_order(pool, one, keys, lambda key: HELD * images.pixel_count(key))
        for key, refined, panel in track(each, "refine", len(keys)):
            kind = "instances" if stage.refine and key not in labelled else clusters.entries[key].kind
            writer.add(key, refined.labels, kind, refined.conf)
            if key in previous.entries:
                agreement.append(dice_masks(refined.labels, previous.mask(key)))
            areas.append(float((refined.labels > 0).mean()))
            smallest.append(refined.min_area)
            ignored.append(float((refined.conf == 0).mean()))
            if panel:
                panels.append(panel)
    noise = stage.expected_noise if by_edges and not labelled else 0.0
    metrics = {"agreement": float(np.mean(agreement))} if agreement else {}  # nothing to agree with in the first round
    metrics |= {
        "edge_score": score,
        "watershed": float(by_edges),
        "foreground_share": float(np.mean(areas)),
        "ignored_share": float(np.mean(ignored)),
        "min_area": float(np.median(smallest)),
    }
    return Result(
        metrics=metrics,
        values={"agreement": metrics.get("agreement", 0.0), "noise": noise},
        page=_page(stage, metrics, panels),
    )


def _sharpen(stage: RefineMasks, score: float, previous: LabelReader) -> BorderRefinement:
    """How borders are moved to the edges in the images: one way for the whole set and all rounds."""
    if not stage.refine or stage.watershed == "never":
        return "none"
    by_edges = score < FOLLOWS_EDGES or stage.watershed == "always"
    if (
        stage.watershed == "auto" and previous.entries
    ):  # decided in the first round: later masks follow edges the better
        by_edges = bool(previous.info.notes.get(WATERSHED, by_edges))
    return "edges" if by_edges else "means"


def _refined(
    stage: RefineMasks, clusters: LabelReader, key: str, image: np.ndarray, sharpen: BorderRefinement
) -> Refined:
    """The pseudo-mask of one image (H, W, C)."""
    if not stage.refine:
        mask = clusters.mask(key)
        return Refined(mask, np.full(mask.shape, 255, np.uint8), 0)
    return refine(
        clusters.probability(key),
        image,
        sharpen=sharpen,
        marker_threshold=stage.marker_threshold,
        ignore_band=stage.ignore_band_px,
        min_area=None if stage.min_area_px == "auto" else stage.min_area_px,
    )


def _edge_score(images: ImageReader, clusters: LabelReader, keys: list[str]) -> float:
    """Median edge score of the proposals of some images; 0 where none has a border."""

    def one(key: str) -> float | None:
        return edge_score((clusters.mask(key) > 0).astype(np.uint8), gradient(grey(images.read(key))))

    with ThreadPoolExecutor(threads()) as pool:
        known = [
            score for score in in_order(pool, one, keys, lambda key: HELD * images.pixel_count(key)) if score is not None
        ]
    return float(np.median(known)) if known else 0.0


def _pass_through(stage: RefineMasks) -> Result:
    """Copy the payload of `previous`."""
    copy_payload(stage.previous, stage.labels)
    return Result(
        metrics={"agreement": 1.0}, values={"agreement": 1.0, "noise": 0.0}, skipped="the EM loop has converged"
    )


def _page(stage: RefineMasks, metrics: dict[str, float], panels: list[Panel]) -> Page:
    page = Page("refine_masks")
    how = "watershed on the image gradient" if metrics["watershed"] else "the classes' means around them, or kept"
    if not stage.refine:
        how = "nothing, masks are handed on as proposed (--refine false)"
    agreement = f"Agreement with the round before: {metrics['agreement']:.3f}. " if "agreement" in metrics else ""
    page.text(
        f"Borders by {how}: the image is {metrics['edge_score']:.2f} times as steep on the proposals' borders as "
        f"around them (from {FOLLOWS_EDGES} on they are kept). "
        f"{agreement}"
        f"Foreground {100 * metrics['foreground_share']:.1f} %, ignored {100 * metrics['ignored_share']:.1f} %, "
        f"smallest region kept {metrics['min_area']:.0f} px² (median over images)."
    )
    for panel in panels:
        page.heading(panel.key)
        rgb8 = to_rgb8(panel.image)
        page.images(
            [
                (rgb8, "input"),
                (outline(rgb8, panel.proposal, width=2), "proposal"),
                (outline(rgb8, panel.refined.labels, width=2), "refined"),
                (panel.refined.conf, "confidence (black: ignored)"),
            ]
        )
    return page
