"""Exponential moving average of weights."""

import torch
from torch import nn


@torch.no_grad()
def update_average(target: nn.Module, source: nn.Module, decay: float) -> None:
    """Update in place: target <- decay * target + (1 - decay) * source; buffers are copied."""
    for mean, new in zip(target.parameters(), source.parameters(), strict=True):
        mean.lerp_(new.detach(), 1 - decay)
    for copy, buffer in zip(target.buffers(), source.buffers(), strict=True):
        copy.copy_(buffer)
