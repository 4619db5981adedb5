"""Move batches of images to a device."""

import numpy as np
import torch
from torch import Tensor


def to_device(images: np.ndarray, device: str) -> Tensor:
    """Images (N, H, W, C) -> tensor (N, C, H, W) float32 on the device."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32)).to(device)
