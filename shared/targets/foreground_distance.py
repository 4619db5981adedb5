"""Target: the foreground, and the distance to the border, normalised for each instance.

Planes: foreground {0, 1}, confidence 0 to 255, distance 0 to 255. Maps: foreground probability and distance, both in
[0, 1]. The distance separates touching instances: it is near 0 between them and 1 in the middle of each.
"""

from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from shared.artifacts.postprocessing import PostProcessing
from shared.data.crops import Window, cut_window, orient
from shared.instances.distance import instance_distance
from shared.instances.postprocess import Segmentation, find_foreground, postprocess
from shared.instances.watershed import split_touching

if TYPE_CHECKING:
    from torch import Tensor

DISTANCE_WEIGHT = 1.0
"""Weight of the distance's loss beside the foreground's."""
GRID = {
    "border_refinement": ("none", "means", "edges"),
    "merge_threshold": (0.8, 0.85, 0.75, 0.9, 0.7, 0.95, 0.6, 0.5, 0.4),
}
_PLANE_SCALES = np.array([1, 1 / 255, 1 / 255], np.float32)[:, None, None]


def encode(labels: np.ndarray, confidence: np.ndarray, kind: Literal["instances", "foreground"]) -> np.ndarray:
    """Label image (H, W) and confidence (H, W) uint8 -> planes (H, W, 3) uint8: mask {0, 1}, confidence, distance.

    A foreground mask is split into instances first.
    """
    mask = (labels > 0).astype(np.uint8)
    instances = split_touching(mask) if kind == "foreground" else labels
    distance = np.rint(instance_distance(instances * mask) * 255).astype(np.uint8)
    return np.stack([mask, confidence, distance], axis=-1)


def cut(planes: np.ndarray, window: Window, size: int) -> np.ndarray:
    """Cut a window from planes (H, W, 3) uint8, oriented as the image's crop: (3, size, size) float32 in [0, 1]."""
    part = np.ascontiguousarray(cut_window(planes, window))
    part = cv2.resize(part, (size, size), interpolation=cv2.INTER_NEAREST)
    return orient(part, window).transpose(2, 0, 1) * _PLANE_SCALES


def loss(logits: "Tensor", planes: "Tensor", *, drop_fraction: float = 0.0) -> "Tensor":
    """Logits (N, 2, H, W) against planes (N, 3, H, W) of `cut` -> scalar.

    drop_fraction: share of the pixels with confidence, those of the largest loss, whose foreground is not learned.
    """
    from shared.targets.losses import cross_entropy_and_dice, drop_largest_losses, weighted_cross_entropy

    mask, confidence, distance = planes.unbind(1)
    mask_logits, distance_logits = logits[:, 0], logits[:, 1]
    weight = drop_largest_losses(mask_logits, mask, confidence, drop_fraction) if drop_fraction else confidence
    distance_loss = weighted_cross_entropy(distance_logits, distance, confidence)
    return cross_entropy_and_dice(mask_logits, mask, weight) + DISTANCE_WEIGHT * distance_loss


def probability(maps: np.ndarray, settings: PostProcessing) -> np.ndarray:
    """Maps (2, ...) in [0, 1] -> foreground probability (...) float32, a view."""
    del settings
    return maps[0]


def foreground(maps: np.ndarray, image: np.ndarray, settings: PostProcessing) -> np.ndarray:
    """Maps (2, H, W) in [0, 1] of an image (H, W, C) -> mask (H, W) uint8 {0, 1}; overwrites `maps[0]`."""
    return find_foreground(maps, image, settings).mask


def decode(maps: np.ndarray, image: np.ndarray, settings: PostProcessing, rows: int | None = None) -> Segmentation:
    """Maps (2, H, W) in [0, 1] of an image (H, W, C) -> mask and instances; overwrites `maps[0]`."""
    return postprocess(maps, image, settings, rows)
