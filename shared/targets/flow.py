"""Target: the foreground, and a flow that leads from each pixel to the middle of its instance.

The method of Cellpose (Stringer et al. 2021, Nature Methods 18:100). Planes: foreground {0, 1}, confidence 0 to 255,
and the flow's two components, 128 + 127 times each. Maps: foreground probability, and (1 + component) / 2 for the
flow's components y and x, all in [0, 1].
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from shared.artifacts.postprocessing import PostProcessing
from shared.data.crops import Window, cut_window, orient
from shared.instances.flows.dynamics import instances_of_flow
from shared.instances.flows.field import heat_flow
from shared.instances.label_image import relabel
from shared.instances.postprocess import Segmentation, find_mask
from shared.instances.watershed import split_touching

if TYPE_CHECKING:
    from torch import Tensor

FLOW_WEIGHT = 1.0
"""Weight of the flow's loss beside the foreground's."""
GRID = {"border_refinement": ("none", "means", "edges"), "min_area_share": (0.05, 0.1, 0.2, 0.3)}
_ZERO, _ONE = 128, 127
"""Value of a flow of 0 in a plane, and what a flow of 1 adds to it."""


def encode(labels: np.ndarray, confidence: np.ndarray, kind: Literal["instances", "foreground"]) -> np.ndarray:
    """Label image (H, W) and confidence (H, W) uint8 -> planes (H, W, 4) uint8: mask {0, 1}, confidence, flow y and x.

    A foreground mask is split into instances first.
    """
    return encode_flow(labels, confidence, kind, heat_flow)


def encode_flow(
    labels: np.ndarray,
    confidence: np.ndarray,
    kind: Literal["instances", "foreground"],
    field: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """As `encode`, with the flow of `field`: label image (H, W) -> (2, H, W) float32."""
    mask = (labels > 0).astype(np.uint8)
    instances = split_touching(mask) if kind == "foreground" else labels
    y, x = np.rint(field(instances) * _ONE + _ZERO).astype(np.uint8)
    return np.stack([mask, confidence, y, x], axis=-1)


def cut(planes: np.ndarray, window: Window, size: int) -> np.ndarray:
    """Cut a window from planes (H, W, 4) uint8, oriented as the image's crop: (4, size, size) float32.

    The flow's components are in [-1, 1] and turn with the crop.
    """
    part = cv2.resize(np.ascontiguousarray(cut_window(planes, window)), (size, size), interpolation=cv2.INTER_NEAREST)
    mask, confidence, y, x = orient(part, window).transpose(2, 0, 1).astype(np.float32)
    y, x = (y - _ZERO) / _ONE, (x - _ZERO) / _ONE
    for _ in range(window.quarter_turns):
        y, x = -x, y
    return np.stack([mask, confidence / 255, y, -x if window.flip else x])


def loss(logits: "Tensor", planes: "Tensor", *, drop_fraction: float = 0.0) -> "Tensor":
    """Logits (N, 3, H, W) against planes (N, 4, H, W) of `cut` -> scalar.

    drop_fraction: share of the pixels with confidence, those of the largest loss, whose foreground is not learned.
    """
    from shared.targets.losses import cross_entropy_and_dice, drop_largest_losses, weighted_squared_error

    mask, confidence, wanted = planes[:, 0], planes[:, 1], planes[:, 2:]
    weight = drop_largest_losses(logits[:, 0], mask, confidence, drop_fraction) if drop_fraction else confidence
    flow = 2 * logits[:, 1:].sigmoid() - 1
    return cross_entropy_and_dice(logits[:, 0], mask, weight) + FLOW_WEIGHT * weighted_squared_error(
        flow, wanted, confidence
    )


def probability(maps: np.ndarray, settings: PostProcessing) -> np.ndarray:
    """Maps (3, ...) in [0, 1] -> foreground probability (...) float32, a view."""
    del settings
    return maps[0]


def foreground(maps: np.ndarray, image: np.ndarray, settings: PostProcessing) -> np.ndarray:
    """Maps (3, H, W) in [0, 1] of an image (H, W, C) -> mask (H, W) uint8 {0, 1}."""
    return find_mask(maps[0], image, settings)[0]


def decode(maps: np.ndarray, image: np.ndarray, settings: PostProcessing, rows: int | None = None) -> Segmentation:
    """Maps (3, H, W) in [0, 1] of an image (H, W, C) -> mask and instances."""
    mask = find_mask(maps[0], image, settings, rows)[0]
    labels = instances_of_flow(2 * maps[1:] - 1, mask)
    return Segmentation(mask, relabel(labels, settings.min_area_px, settings.min_area_share))
