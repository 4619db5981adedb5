"""Turn a soft proposal into pseudo-instances, one image at a time."""

from dataclasses import dataclass

import cv2
import numpy as np
from skimage.segmentation import watershed

from shared.artifacts.postprocessing import BorderRefinement
from shared.imaging.gradients import gradient, near_border
from shared.imaging.grey import UNCLIPPED, grey
from shared.instances.borders.band_watershed import BACKGROUND, FOREGROUND, band_watershed
from shared.instances.borders.border_contrast import border_weight
from shared.instances.borders.border_refinement import refine_border
from shared.instances.borders.pale_centres import gaps, opened, pale_centres
from shared.instances.label_image import fill_holes, relabel, typical_area
from shared.instances.watershed import split_touching

MIN_EDGE_SCORE = 1.2
"""Median edge score from which on the proposals of a set are taken to follow the edges (RESULTS.md, "Constants")."""
FILLED_HOLE_CONFIDENCE = 128
"""Confidence of a hole that was filled, of 255."""
_MIN_REGION_SHARE = 0.15
"""A connected region below this share of the typical object's area is dropped."""
_MAX_HOLE_SHARE = 0.5
"""Background that a mask encloses is filled up to this share of the typical object's area. Where the border was not
found by watershed, gaps between objects stay open (`shared.instances.borders.pale_centres`)."""
_RIM = np.ones((7, 7), np.uint8)
"""Around a pale centre: its rim looks like a border between objects, and is none."""
_CONTRADICTION = 0.3
"""The watershed's foreground is ignored where the proposal's probability is below this, and likewise its background."""
_FULL_CONFIDENCE = 0.25
"""Difference of a probability from 0.5 that counts as certain."""
_GRADIENT_LEVELS = 1024
"""Levels that the gradient is rounded to before the watershed."""


@dataclass
class PseudoMask:
    """Pseudo-instances of an image."""

    labels: np.ndarray
    """(H, W), instances"""
    conf: np.ndarray
    """(H, W) uint8, 0 = ignore"""
    min_area: int
    """px², area of the smallest region that was kept."""


def refine_proposal(
    probability: np.ndarray,
    image: np.ndarray,
    *,
    border_refinement: BorderRefinement,
    marker_threshold: float,
    ignore_band: int,
    min_area: int | None,
    instances: np.ndarray | None = None,
) -> PseudoMask:
    """Refine a soft proposal (H, W) float32 of an image (H, W, C).

    The border is where the probability is 0.5, and moves from there as `border_refinement` says, see
    `shared.instances.borders.border_refinement`. For `edges`, the border is found by watershed of the gradient from
    markers of `marker_threshold` instead, and pixels where the proposal contradicts the watershed are ignored; refining
    that border again would shrink the masks from round to round.
    ignore_band: px on either side of the border that are ignored; min_area: px², None: a share of the image's typical
    object; instances: (H, W) of integers, a segmentor's, by which the mask is parted; None: the image decides.
    """
    plane, centres, open_gaps = grey(image), np.zeros(probability.shape, bool), None
    if border_refinement == "edges":
        mask = watershed_mask(probability, gradient(plane), marker_threshold)
        certainty = _agreement(probability, mask)
    else:
        before = (probability >= 0.5).astype(np.uint8)
        mask = refine_border(image, before, border_refinement)
        centres = opened(before, mask)
        mask[centres] = 1
        centres |= pale_centres(mask, plane)
        mask[centres] = 1
        certainty = np.clip(np.abs(probability - 0.5) / _FULL_CONFIDENCE, 0, 1)
        certainty[centres] = FILLED_HOLE_CONFIDENCE / 255
        open_gaps = gaps(mask, plane)
    cleaned, dropped, smallest = clean(mask, min_area, open_gaps)
    conf = np.rint(certainty * 255).astype(np.uint8)
    conf[dropped] = 0
    conf[(cleaned > 0) & (mask == 0)] = FILLED_HOLE_CONFIDENCE
    if ignore_band:
        conf[near_border(cleaned, 2 * ignore_band + 1)] = 0
    distance = border_weight(grey(image, normalisation=UNCLIPPED), cleaned)
    distance[cv2.dilate(centres.view(np.uint8), _RIM) > 0] = 1
    labels = split_touching(cleaned, distance=distance)
    if instances is not None:
        labels = part_by_instances(labels, instances)
    conf[(cleaned > 0) & (labels == 0)] = 0  # small parts that the splitting dropped
    return PseudoMask(labels, conf, smallest)


def part_by_instances(labels: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """Part the foreground of a label image (H, W) by other instances (H, W): label image (H, W), numbered from 1.

    A pixel of the foreground that none of them covers belongs to the one that is nearest within the foreground. What is
    connected with none of them stays as it is in `labels`.
    """
    mask = labels > 0
    markers = np.where(mask, instances, 0).astype(np.int32)
    parted = watershed(np.zeros(mask.shape, np.uint8), markers, mask=mask)
    rest = mask & (parted == 0)
    parted[rest] = labels[rest].astype(np.int32) + int(parted.max(initial=0))
    return relabel(parted)


def watershed_mask(probability: np.ndarray, gradient_magnitude: np.ndarray, marker_threshold: float) -> np.ndarray:
    """Find the border by watershed of the gradient between confident markers: mask (H, W) uint8 {0, 1}.

    probability, gradient_magnitude: (H, W) float32; marker_threshold: probability of a foreground marker; a background
    marker has at most 1 minus this. Without markers of both classes it is the proposal's own mask.
    """
    markers = np.zeros(probability.shape, np.int32)
    markers[probability <= 1 - marker_threshold] = BACKGROUND
    markers[probability >= marker_threshold] = FOREGROUND
    if not (markers == BACKGROUND).any() or not (markers == FOREGROUND).any():
        return (probability >= 0.5).astype(np.uint8)
    top = max(float(np.percentile(gradient_magnitude, 99.9)), 1e-9)
    levels = np.rint(np.clip(gradient_magnitude / top, 0, 1) * _GRADIENT_LEVELS).astype(np.int32)
    return band_watershed(levels, markers)


def _agreement(probability: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """1 where a mask may move the proposal's border, 0 where the proposal clearly contradicts it: (H, W) float32."""
    contradicted = np.where(mask > 0, probability < _CONTRADICTION, probability > 1 - _CONTRADICTION)
    return np.where(contradicted, 0, 1).astype(np.float32)


def clean(
    mask: np.ndarray, min_area: int | None, open_gaps: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Fill holes and drop specks of a mask (H, W) uint8 {0, 1}.

    min_area: px², None: a share of the typical object's area; open_gaps: (H, W) bool, holes that stay. Returns the
    mask, the dropped pixels (H, W) bool, and the smallest area that is kept.
    """
    areas = np.bincount(split_touching(mask, min_area=4).ravel())[1:]
    if len(areas) == 0:
        return mask, np.zeros(mask.shape, bool), min_area or 0
    typical = typical_area(areas)
    smallest = min_area if min_area is not None else max(4, round(_MIN_REGION_SHARE * typical))
    filled = fill_holes(mask, round(_MAX_HOLE_SHARE * typical))
    if open_gaps is not None:
        filled[open_gaps] = 0
    count, regions, stats, _ = cv2.connectedComponentsWithStats(filled, connectivity=4, ltype=cv2.CV_32S)
    keep = stats[:count, cv2.CC_STAT_AREA] >= smallest
    keep[0] = False
    kept = keep[regions]
    return kept.astype(np.uint8), (filled > 0) & ~kept, smallest
