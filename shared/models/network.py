"""A network as a function of arrays, whatever runs it: PyTorch here, ONNX Runtime or TensorRT for exported models."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import nn

Network = Callable[[np.ndarray], np.ndarray]
"""Normalised tiles (N, C, H, W) float32 -> float32: of a segmentor maps (N, maps, H, W) in [0, 1], of an encoder
features (N, width, rows, columns)."""


def as_network(module: "nn.Module", device: str) -> Network:
    """A module of one input and one output, on `device` and in evaluation mode."""
    import torch

    def network(tiles: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(tiles).to(device)).float().cpu().numpy())

    return network
