"""Represent a network as a function of arrays, whatever runs it: PyTorch, ONNX Runtime or TensorRT."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import nn

Network = Callable[[np.ndarray], np.ndarray]
"""Normalised tiles (N, C, H, W) float32 -> float32: a segmentor's maps (N, maps, H, W) in [0, 1], or an encoder's
features (N, width, rows, columns)."""


def as_network(module: "nn.Module", device: str) -> Network:
    """Wrap a module of one input and one output, which is on `device` and in evaluation mode."""
    import torch

    def network(tiles: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(module(torch.from_numpy(tiles).to(device)).float().cpu().numpy())

    return network
