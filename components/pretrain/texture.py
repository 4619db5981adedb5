"""Texture targets: brightness, contrast and gradients of every patch, which an encoder also predicts.

Cells in phase contrast differ from their background in contrast alone. Predicting pixels teaches a transformer little
about it: each patch is predicted in units of its own deviation, and the phase of a fine texture cannot be predicted at
all. MaskFeat (Wei et al. 2022, arXiv:2112.09133) predicts histograms of oriented gradients (Dalal and Triggs 2005,
doi:10.1109/CVPR.2005.177) of hidden patches. Two things differ here. The histograms are not normalised, which would
remove the contrast again; their logarithm is predicted. And they are predicted for visible patches as well: a linear
embedding of pixels holds no contrast, so the transformer has to learn to compute it. DINO does not ask for contrast
either: what its views have in common need not be what distinguishes cells.
"""

import math

import torch
from torch import Tensor, nn

ORIENTATIONS = 8
"""Bins of the gradient's direction, modulo 180 degrees. The axes and the diagonals, which are frequent where pixels are
whole numbers, are in the middle of their bins."""
_QUARTERS = 4
DESCRIPTORS = ORIENTATIONS + _QUARTERS + 1
"""Numbers that describe one channel of a patch."""
LOG_OFFSET = 0.003
"""Added before the logarithm, in units of the network's input, about 0 to 1: smaller contrasts are not told apart."""
TEXTURE_SHARE = 0.7
"""Weight of texture in the loss; the rest is the objective's. Each term is 1 for a prediction that knows nothing."""


def descriptors(patches: Tensor, side: int) -> Tensor:
    """Patches (N, T, side² * C), pixels row by row, channels innermost -> (N, T, DESCRIPTORS * C) float32; no gradient.

    Of each channel: the logarithm of the mean gradient in each direction, the logarithm of the deviation in each
    quarter, and the mean.
    """
    x = patches.detach().float().unflatten(2, (side, side, -1)).movedim(-1, 2)
    down, right = x[..., 1:, :-1] - x[..., :-1, :-1], x[..., :-1, 1:] - x[..., :-1, :-1]
    length = torch.hypot(down, right).flatten(3)
    bins = (torch.atan2(down, right) * (ORIENTATIONS / math.pi)).round().long().remainder(ORIENTATIONS).flatten(3)
    gradients = length.new_zeros(*length.shape[:3], ORIENTATIONS).scatter_add_(3, bins, length) / length.shape[3]
    half = side // 2
    quarters = x.unflatten(4, (2, half)).unflatten(3, (2, half)).transpose(4, 5).flatten(5)
    contrast = quarters.std(dim=5).flatten(3)
    strength = (torch.cat([gradients, contrast], dim=3) + LOG_OFFSET).log()
    return torch.cat([strength, x.mean(dim=(3, 4))[..., None]], dim=3).flatten(2)


class Texture(nn.Module):
    """Descriptors of patches, each with mean 0 and variance 1 over the patches that it was fitted to."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, side: int, channels: int) -> None:
        super().__init__()
        self.side = side
        self.register_buffer("mean", torch.zeros(DESCRIPTORS * channels))
        self.register_buffer("deviation", torch.ones(DESCRIPTORS * channels))

    def fit(self, patches: Tensor) -> None:
        """Fit mean and deviation to some patches of the set, (N, T, side² * C)."""
        found = descriptors(patches, self.side).flatten(0, 1)
        self.mean.copy_(found.mean(dim=0))
        self.deviation.copy_(found.std(dim=0).clamp_min(1e-3))

    def forward(self, patches: Tensor) -> Tensor:
        """(N, T, side² * C) -> (N, T, DESCRIPTORS * C) float32; no gradient."""
        return (descriptors(patches, self.side) - self.mean) / self.deviation
