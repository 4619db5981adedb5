"""Represent a network as a function of arrays, whatever runs it: PyTorch, ONNX Runtime or TensorRT."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import nn

Network = Callable[[np.ndarray], tuple[np.ndarray, ...]]
"""Normalised images (N, C, H, W) float32 -> the outputs of the model's kind, float32, in this order:

- encoder: features (N, width, rows, columns)
- segmentor: maps (N, maps, H, W) in [0, 1]
- classifier: probabilities (N, classes), and distances (N,) from the training images
- detector: scores (N, queries, classes) in [0, 1], and boxes (N, queries, 4): x0, y0, x1, y1 as shares of the image's
  width and height
"""
OUTPUTS: dict[str, tuple[str, ...]] = {
    "encoder": ("features",),
    "segmentor": ("maps",),
    "classifier": ("probability", "distance"),
    "detector": ("scores", "boxes"),
}
"""Kind of model -> names of its outputs."""


def as_network(module: "nn.Module", device: str) -> Network:
    """Wrap a module of one input, and one output or a tuple, which is on `device` and in evaluation mode."""
    import torch

    def network(images: np.ndarray) -> tuple[np.ndarray, ...]:
        with torch.inference_mode():
            outputs = module(torch.from_numpy(images).to(device))
            outputs = outputs if isinstance(outputs, tuple) else (outputs,)
            return tuple(np.asarray(output.float().cpu().numpy()) for output in outputs)

    return network
