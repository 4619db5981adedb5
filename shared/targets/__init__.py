"""Targets of training: what a network learns from labels, one module each.

A target encodes label images as planes, cuts them along with a crop, has a loss, and turns the network's maps back into
instances. A new one is a module with the functions of `Target`, an entry in `TARGETS`, and its maps in
`shared.models.config.MAPS`.
"""

import importlib
from typing import TYPE_CHECKING, Literal, Protocol, cast

import numpy as np

from shared.artifacts.postprocessing import PostProcessing
from shared.instances.postprocess import Segmentation

if TYPE_CHECKING:
    from torch import Tensor

    from shared.data.crops import Window

TARGETS = ("foreground_distance",)


class Target(Protocol):
    """The functions of a target's module."""

    def encode(
        self, labels: np.ndarray, confidence: np.ndarray, kind: Literal["instances", "foreground"]
    ) -> np.ndarray:
        """Label image (H, W) and confidence (H, W) uint8 -> planes (H, W, P) uint8; the first is the foreground."""

    def cut(self, planes: np.ndarray, window: "Window", size: int) -> np.ndarray:
        """The window of planes (H, W, P), turned as the crop is -> (P, size, size) float32."""

    def loss(self, logits: "Tensor", planes: "Tensor", *, drop_fraction: float = 0.0) -> "Tensor":
        """Logits (N, M, H, W) against planes (N, P, H, W) -> scalar, over all processes.

        drop_fraction: share of the pixels, those of the largest loss, that are not learned.
        """

    def foreground(self, maps: np.ndarray, image: np.ndarray, settings: PostProcessing) -> np.ndarray:
        """Maps (M, H, W) in [0, 1] of an image (H, W, C) -> mask (H, W) uint8 {0, 1}, without splitting it."""

    def decode(self, maps: np.ndarray, image: np.ndarray, settings: PostProcessing, rows: int = 512) -> Segmentation:
        """Maps (M, H, W) in [0, 1] of an image (H, W, C) -> mask and instances; may overwrite the maps."""


def load_target(name: str) -> Target:
    """The target's module."""
    if name not in TARGETS:
        raise ValueError(f"{name!r}: no such target; there are {', '.join(TARGETS)}")
    return cast("Target", importlib.import_module(f"shared.targets.{name}"))
