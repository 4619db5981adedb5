"""Turn a network's maps into instances: the one function behind every stage that makes them.

>>> found = postprocess(maps, image, config.postprocessing)
>>> found.labels  # (H, W), instances
"""

from dataclasses import dataclass

import cv2
import numpy as np

from shared.artifacts.postprocessing import PostProcessing
from shared.imaging.row_strips import row_slices
from shared.instances.borders.border_contrast import weight_by_border_contrast
from shared.instances.borders.border_refinement import refine_border
from shared.instances.borders.pale_centres import opened, pale_centres_of_image
from shared.instances.object_filters import drop_flat_objects, hysteresis
from shared.instances.watershed import split_touching

MIN_CENTRE_SHARE = 0.02
"""Area of the pale centres in a group of touching objects, as a share of the group's, from which on its shape alone
counts (RESULTS.md, "Constants")."""


@dataclass
class Foreground:
    """Foreground of an image by a network's maps, before touching objects are split."""

    mask: np.ndarray
    """(H, W) uint8 {0, 1}"""
    distance: np.ndarray | None
    """(H, W) float32 in [0, 1], the network's distance map, lowered where the image looks as on the mask's border, and
    1 in groups of objects with pale centres; None where the network has no such map."""
    network_distance: np.ndarray | None
    """(H, W) float32 in [0, 1], the distance map as the network gives it."""


@dataclass
class Segmentation:
    """Foreground and instances of an image."""

    mask: np.ndarray
    """(H, W) uint8 {0, 1}, foreground."""
    labels: np.ndarray
    """(H, W) uint16 or uint32, instances."""


def postprocess(maps: np.ndarray, image: np.ndarray, settings: PostProcessing, rows: int | None = None) -> Segmentation:
    """Maps (M, H, W) float32 in [0, 1] of an image (H, W, C) -> mask and instances; overwrites `maps[0]`."""
    foreground = find_foreground(maps, image, settings, rows)
    return Segmentation(foreground.mask, split_instances(foreground, settings))


def find_foreground(
    maps: np.ndarray, image: np.ndarray, settings: PostProcessing, rows: int | None = None
) -> Foreground:
    """Threshold the foreground map, keep objects by hysteresis, refine the border, and fill pale centres.

    maps: (M, H, W) float32 in [0, 1], foreground and, where M is 2, distance; may be a memory map, read `rows` rows at
    a time. `maps[0]` is overwritten by the lowered distance map, which saves a third array for a large image.
    """
    mask, of_rings = find_mask(maps[0], image, settings, rows)
    if len(maps) < 2:
        return Foreground(mask, None, None)
    for part in row_slices(len(mask), rows):
        maps[0, part] = maps[1, part]
    weight_by_border_contrast(maps[0], image, mask)
    if of_rings is not None:
        for part in row_slices(len(mask), rows):
            maps[0, part][of_rings[part]] = 1
    return Foreground(mask, maps[0], maps[1])


def find_mask(
    probability: np.ndarray, image: np.ndarray, settings: PostProcessing, rows: int | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Threshold a foreground map, keep objects by hysteresis, refine the border, and fill pale centres.

    probability: (H, W) float32 in [0, 1], may be a memory map, read `rows` rows at a time. Returns the mask (H, W)
    uint8 {0, 1} and the groups of touching objects with pale centres, (H, W) bool, or None.
    """
    mask = threshold(probability, settings.foreground_threshold, rows)
    if settings.high_threshold > settings.foreground_threshold:
        mask = hysteresis(mask, probability, settings.high_threshold, rows)
    before, mask = mask, refine_border(image, mask, settings.border_refinement)
    return mask, _fill_centres(before, mask, image) if settings.pale_centres == "fill" else None


def _fill_centres(before: np.ndarray, mask: np.ndarray, image: np.ndarray) -> np.ndarray | None:
    """Fill the pale centres of a mask (H, W) in place; before: the mask before its border was refined.

    Returns the groups of touching objects with pale centres, (H, W) bool, or None: for these the shape alone tells
    where they part, since the network's distance map and the border's contrast follow the ring. A hole that is small
    for its group is a gap.
    """
    centres = opened(before, mask)
    mask[centres] = 1
    centres |= pale_centres_of_image(mask, image)
    if not centres.any():
        return None
    mask[centres] = 1
    count, groups = cv2.connectedComponents(mask, connectivity=4, ltype=cv2.CV_32S)
    within = np.bincount(groups[centres], minlength=count)
    has_centres = (within > 0) & (within >= MIN_CENTRE_SHARE * np.bincount(groups.ravel(), minlength=count))
    has_centres[0] = False
    return has_centres[groups]


def threshold(probability: np.ndarray, value: float, rows: int | None = None) -> np.ndarray:
    """Mask (H, W) uint8 {0, 1} of the pixels of at least `value`; a memory map is read `rows` rows at a time."""
    mask = np.empty(probability.shape, np.uint8)
    for part in row_slices(len(mask), rows):
        np.greater_equal(probability[part], value, out=mask[part].view(bool))
    return mask


def split_instances(foreground: Foreground, settings: PostProcessing) -> np.ndarray:
    """Split touching objects by watershed and drop small and flat ones: label image (H, W)."""
    labels = split_touching(
        foreground.mask,
        min_seed_distance=settings.min_seed_distance_px,
        min_area=settings.min_area_px,
        merge_threshold=settings.merge_threshold,
        distance=foreground.distance,
        min_area_share=settings.min_area_share,
    )
    if foreground.network_distance is None:
        return labels
    return drop_flat_objects(labels, foreground.network_distance, settings.min_distance_share)
