"""Part a distance map of instances, without a mask, as SAMCell does (VandeLoo et al. 2025, PLOS ONE 20:e0319532).

What reaches a high threshold is a seed, what reaches a low one belongs to an instance, and a watershed of the map parts
what several seeds share. Components with one seed need no watershed, which saves most of the time.
"""

import cv2
import numpy as np
from skimage.segmentation import watershed

from shared.instances.bin_packing import Box, pack_arrays


def seeded_watershed(distance: np.ndarray, mask: np.ndarray, seed_threshold: float) -> np.ndarray:
    """Instances (H, W) int32, numbered from 1, of a distance map (H, W) float32 and a mask (H, W) uint8 {0, 1}.

    A seed is a connected region of the mask in which the distance reaches `seed_threshold`. Components of the mask
    without a seed are dropped. Pixels are connected by their sides.
    """
    count, components, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=4, ltype=cv2.CV_32S)
    seeded = (distance >= seed_threshold).view(np.uint8) & mask
    seed_count, seeds = cv2.connectedComponents(seeded, connectivity=4, ltype=cv2.CV_32S)
    owner = np.zeros(seed_count, np.int32)
    where = np.flatnonzero(seeded)
    owner[seeds.ravel()[where]] = components.ravel()[where]
    table = np.zeros(count, np.int32)
    table[owner[1:]] = np.arange(1, seed_count, dtype=np.int32)
    labels = table[components]
    shared = np.flatnonzero(np.bincount(owner[1:], minlength=count) > 1).tolist()
    if not shared:
        return labels
    boxes = [_box(statistics[component]) for component in shared]
    places, (heights, markers, owners) = pack_arrays([distance, seeds, components], boxes, 1)
    inside = np.zeros(owners.shape, bool)
    for component, place in zip(shared, places, strict=True):
        np.equal(owners[place], component, out=inside[place])
    parted = watershed(-heights, markers * inside, mask=inside)
    for box, place in zip(boxes, places, strict=True):
        np.copyto(labels[box], parted[place], where=inside[place])
    return labels


def _box(statistics: np.ndarray) -> Box:
    """Bounding box of a component by OpenCV's statistics of it."""
    x, y, width, height = statistics[:4].tolist()
    return slice(y, y + height), slice(x, x + width)
