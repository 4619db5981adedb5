"""Normalisations of convolutional feature maps."""

import math
from collections.abc import Callable

from torch import Tensor, nn

MAX_GROUPS = 32
"""Number of groups, Wu & He 2018 (arXiv:1803.08494), table 3; fewer where they do not divide the channels."""


class FrozenBatchNorm(nn.BatchNorm2d):
    """Batch norm that keeps the statistics and the scale of a pretrained network, also in training."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> "FrozenBatchNorm":
        """Stay in evaluation mode."""
        del mode
        super().train(False)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm of up to `MAX_GROUPS` groups."""
    return nn.GroupNorm(math.gcd(MAX_GROUPS, channels), channels)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "frozen": FrozenBatchNorm,
    "group": group_norm,
}
"""Name -> function from the number of channels to the module."""
