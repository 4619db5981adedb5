"""Backbones: networks that turn images into feature maps, with one interface for every dense head."""

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class FeatureMap(NamedTuple):
    """Features on a regular grid over a batch of images."""

    features: "Tensor"
    """(N, width, H / stride, W / stride)"""
    stride: int
    """px of the image between neighbouring features."""


class Backbone(Protocol):
    """A network with feature maps of one or several strides."""

    def feature_maps(self, x: "Tensor", blocks: int = 1) -> list[FeatureMap]:
        """Images (N, C, H, W) float32 -> feature maps, from the earliest to the last block; strides never decrease.

        blocks: number of last blocks, or stages of a convolutional network, whose outputs are returned.
        """
