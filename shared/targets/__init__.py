"""Training targets: what a network learns from labels, one module each.

A target encodes label images as planes, cuts them together with a crop, computes the loss, and decodes the network's
maps to instances. To add one, write a module with the functions of `Target` (`foreground_distance.py` is an example),
add it to `TARGETS`, and name its maps in `shared.models.decoders.target_maps`.
"""

from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from shared.artifacts.postprocessing import PostProcessing
from shared.data.crops import Window
from shared.instances.postprocess import Segmentation
from shared.targets import distance, distance_flow, flow, foreground_distance

if TYPE_CHECKING:
    from torch import Tensor


class Target(Protocol):
    """The functions and constants of a target's module."""

    GRID: dict[str, tuple[Any, ...]]
    """Settings of the post-processing that labelled images decide -> values that are tried; of equally good ones the
    first is taken."""

    def encode(
        self, labels: np.ndarray, confidence: np.ndarray, kind: Literal["instances", "foreground"]
    ) -> np.ndarray:
        """Label image (H, W) and confidence (H, W) uint8 -> planes (H, W, P) uint8; the first is the foreground."""

    def cut(self, planes: np.ndarray, window: Window, size: int) -> np.ndarray:
        """Cut a window from planes (H, W, P), oriented as the image's crop -> (P, size, size) float32."""

    def loss(self, logits: "Tensor", planes: "Tensor", *, drop_fraction: float = 0.0) -> "Tensor":
        """Logits (N, M, H, W) against planes (N, P, H, W) -> scalar, over the batch of all processes.

        drop_fraction: share of the pixels, those of the largest loss, that are not learned.
        """

    def probability(self, maps: np.ndarray, settings: PostProcessing) -> np.ndarray:
        """Maps (M, ...) in [0, 1] -> foreground probability (...) float32 in [0, 1], possibly a view of the maps."""

    def foreground(self, maps: np.ndarray, image: np.ndarray, settings: PostProcessing) -> np.ndarray:
        """Maps (M, H, W) in [0, 1] of an image (H, W, C) -> mask (H, W) uint8 {0, 1}; may overwrite the maps."""

    def decode(self, maps: np.ndarray, image: np.ndarray, settings: PostProcessing, rows: int = 512) -> Segmentation:
        """Maps (M, H, W) in [0, 1] of an image (H, W, C) -> mask and instances; may overwrite the maps.

        rows: rows of memory maps that are read at a time.
        """


TARGETS: dict[str, Target] = {
    "foreground_distance": foreground_distance,
    "distance": distance,
    "flow": flow,
    "distance_flow": distance_flow,
}
"""Name, as in the `target` of a model's architecture -> its module."""
