"""What an encoder has to tell of every patch beside its objective: how bright it is, its contrast, and its gradients.

Cells in phase contrast differ from their background by contrast alone. Pixels teach a transformer little of it: each
patch is predicted in units of its own deviation, and the phase of a fine texture cannot be predicted at all. MaskFeat
(Wei et al. 2022, arXiv:2112.09133) predicts histograms of oriented gradients (Dalal and Triggs 2005,
doi:10.1109/CVPR.2005.177) of hidden patches. Here they are not normalised, since that would take contrast away again;
their logarithm is taken instead. And they are told of the patches seen as well: a linear embedding of pixels holds no
contrast, so that the transformer has to learn to see it. Nor does DINO ask for it: what its views have in common need
not be what cells are made of.
"""

import math

import torch
from torch import Tensor, nn

ORIENTATIONS = 8
"""Bins of the gradient's direction, opposite ones taken together. Directions that are frequent where pixels are whole
numbers, along the axes and the diagonals, are in the middle of theirs."""
QUARTERS = 4
DESCRIPTORS = ORIENTATIONS + QUARTERS + 1
"""Numbers that describe a channel of a patch."""
FAINT = 0.003
"""Of the network's input, which is 0 to 1: contrast and gradients far below are told apart no more."""
TEXTURE_SHARE = 0.7
"""Of the loss, where texture is told; the rest is the objective's own. Each is 1 where nothing is known."""


def descriptors(patches: Tensor, side: int) -> Tensor:
    """Patches (N, T, side² * C), pixels row by row, channels innermost -> (N, T, DESCRIPTORS * C) float32; no gradient.

    Of each channel: the logarithm of the mean gradient in each direction, that of the deviation in each quarter, and
    the mean.
    """
    x = patches.detach().float().unflatten(2, (side, side, -1)).movedim(-1, 2)
    down, right = x[..., 1:, :-1] - x[..., :-1, :-1], x[..., :-1, 1:] - x[..., :-1, :-1]
    length = torch.hypot(down, right).flatten(3)
    bins = (torch.atan2(down, right) * (ORIENTATIONS / math.pi)).round().long().remainder(ORIENTATIONS).flatten(3)
    gradients = length.new_zeros(*length.shape[:3], ORIENTATIONS).scatter_add_(3, bins, length) / length.shape[3]
    half = side // 2
    quarters = x.unflatten(4, (2, half)).unflatten(3, (2, half)).transpose(4, 5).flatten(5)
    contrast = quarters.std(dim=5).flatten(3)
    strength = (torch.cat([gradients, contrast], dim=3) + FAINT).log()
    return torch.cat([strength, x.mean(dim=(3, 4))[..., None]], dim=3).flatten(2)


class Texture(nn.Module):
    """The descriptors of a set's patches, each of mean 0 and variance 1 over the patches it was `fit` to."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, side: int, channels: int) -> None:
        super().__init__()
        self.side = side
        self.register_buffer("mean", torch.zeros(DESCRIPTORS * channels))
        self.register_buffer("deviation", torch.ones(DESCRIPTORS * channels))

    def fit(self, patches: Tensor) -> None:
        """patches: (N, T, side² * C), some of the set's."""
        found = descriptors(patches, self.side).flatten(0, 1)
        self.mean.copy_(found.mean(dim=0))
        self.deviation.copy_(found.std(dim=0).clamp_min(1e-3))

    def forward(self, patches: Tensor) -> Tensor:
        """(N, T, side² * C) -> (N, T, DESCRIPTORS * C) float32; no gradient."""
        return (descriptors(patches, self.side) - self.mean) / self.deviation
