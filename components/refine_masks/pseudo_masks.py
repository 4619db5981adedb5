"""From a soft proposal to pseudo-instances, one image at a time."""

from dataclasses import dataclass

import cv2
import numpy as np
from skimage.segmentation import watershed

from shared.imaging.gradients import gradient, near_border
from shared.imaging.grey import grey
from shared.instances.border_contrast import border_weight
from shared.instances.border_refinement import BorderRefinement, refine_border
from shared.instances.label_image import fill_holes, typical_area
from shared.instances.watershed import split_touching

FOLLOWS_EDGES = 1.2
"""Edge score from which on a set's proposals are taken to follow the edges already.

Measured medians: thresholded intensity 1.5 (dense nuclei) to 2.5 (fluorescence), thresholded texture of phase contrast
0.7; hand-drawn borders 1.3 to 2.6.
"""
SMALLEST_PIECE = 0.15
"""A connected region below this share of the typical piece's area is dropped."""
TYPICAL_HOLE = 0.5
"""Background that a mask encloses is filled up to this share of the typical piece's area."""
CONTRADICTED = 0.3
"""The watershed's foreground is ignored where the proposal's probability is below this, and likewise its background."""
FULL_CONFIDENCE = 0.25
"""Distance of a probability from 0.5 that counts as certain."""
LEVELS = 1024
"""Steps the gradient is rounded to before the watershed, so that equal images flood in the same order everywhere."""


@dataclass
class Refined:
    """Pseudo-instances."""

    labels: np.ndarray
    """(H, W), instances"""
    conf: np.ndarray
    """(H, W) uint8, 0 = ignore"""
    min_area: int
    """px², the smallest region that was kept."""


def refine(
    probability: np.ndarray,
    image: np.ndarray,
    *,
    sharpen: BorderRefinement,
    marker_threshold: float,
    ignore_band: int,
    min_area: int | None,
) -> Refined:
    """Soft proposal (H, W) float32 of an image (H, W, C) -> pseudo-instances.

    The border is where the probability is 0.5, and moves from there as `sharpen` says, see `shared.instances.border_refinement`. For
    `edges` it is found by watershed of the gradient from markers of `marker_threshold`, and what the proposal
    contradicts is ignored; to sharpen it as well makes masks downsample from round to round. min_area: px²; None: a
    share of the image's typical piece.
    """
    plane, wanted = grey(image), probability >= 0.5
    certain = np.clip(np.abs(probability - 0.5) / FULL_CONFIDENCE, 0, 1)
    if sharpen == "edges":
        mask = flood(probability, gradient(plane), marker_threshold)
        # the watershed may move the border, but not against what the proposal is fairly sure of
        low, high = CONTRADICTED, 1 - CONTRADICTED
        contradicted = np.where(mask, probability < low, probability > high)
        certain = np.where(contradicted, 0, 1).astype(np.float32)
    else:
        mask = refine_border(image, wanted.astype(np.uint8), sharpen) > 0
    whole, dropped, smallest = clean(mask.astype(np.uint8), min_area)
    conf = np.rint(certain * 255).astype(np.uint8)
    conf[dropped] = 0
    conf[(whole > 0) & ~mask] = 128  # a hole in the middle of an object, filled up
    mask = whole
    if ignore_band:
        conf[near_border(mask, 2 * ignore_band + 1)] = 0
    labels = split_touching(mask, distance=border_weight(plane, mask))
    conf[(mask > 0) & (labels == 0)] = 0  # crumbs
    return Refined(labels, conf, smallest)


def flood(probability: np.ndarray, slope: np.ndarray, confident: float) -> np.ndarray:
    """Watershed of the gradient between confident foreground and confident background: (H, W) bool.

    Beucher & Lantuejoul 1979. Without markers of both sides it is the proposal's own mask.
    """
    markers = np.zeros(probability.shape, np.int32)
    markers[probability <= 1 - confident] = 1
    markers[probability >= confident] = 2
    if not (markers == 1).any() or not (markers == 2).any():
        return probability >= 0.5
    top = max(float(np.percentile(slope, 99.9)), 1e-9)
    levels = np.rint(np.clip(slope / top, 0, 1) * LEVELS).astype(np.int32)
    # only what lies next to an undecided pixel matters: the inside of a marker would take most of the time
    undecided = (markers == 0).astype(np.uint8)
    band = cv2.dilate(undecided, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))) > 0
    flooded = watershed(levels, np.where(band, markers, 0), mask=band)
    return np.where(band, flooded, markers) == 2


def clean(mask: np.ndarray, min_area: int | None) -> tuple[np.ndarray, np.ndarray, int]:
    """Fill holes and drop specks.

    mask: (H, W) uint8 {0, 1}; min_area: px²; None: a share of the typical piece's area. Returns the mask, what was
    dropped (H, W) bool, and the smallest area kept.
    """
    areas = np.bincount(split_touching(mask, min_area=4).ravel())[1:]
    if len(areas) == 0:
        return mask, np.zeros(mask.shape, bool), min_area or 0
    typical = typical_area(areas)
    smallest = min_area or max(4, round(SMALLEST_PIECE * typical))
    filled = fill_holes(mask, round(TYPICAL_HOLE * typical))
    count, regions, stats, _ = cv2.connectedComponentsWithStats(filled, connectivity=4, ltype=cv2.CV_32S)
    keep = stats[:count, cv2.CC_STAT_AREA] >= smallest
    keep[0] = False
    kept = keep[regions]
    return kept.astype(np.uint8), (filled > 0) & ~kept, smallest
