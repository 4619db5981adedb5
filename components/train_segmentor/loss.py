"""Losses of the segmentor's maps against masks that are only partly trusted.

Over the whole batch, wherever its parts are: see `shared.distributed`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from shared.distributed import total

DICE_WEIGHT = 0.5
DEPTH_WEIGHT = 1.0
"""Of `depth_loss`, beside the foreground's loss."""


def foreground_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted binary cross-entropy plus half a soft Dice loss (Milletari et al. 2016, arXiv:1606.04797), a scalar.

    logits, target {0, 1}, weight in [0, 1]: (N, H, W). Pixels of weight 0 count in neither part.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
    probability = torch.sigmoid(logits)
    hit = (weight * probability * target).sum()
    both = (weight * (probability + target)).sum()
    entropy, hit, both, trusted = total(torch.stack([entropy, hit, both, weight.sum()]))
    return entropy / trusted.clamp(min=1) + DICE_WEIGHT * (1 - (2 * hit + 1) / (both + 1))


def depth_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted binary cross-entropy of depths, a scalar: least where sigmoid(logits) is the target.

    logits, target and weight in [0, 1]: (N, H, W).
    """
    entropy = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
    entropy, trusted = total(torch.stack([entropy, weight.sum()]))
    return entropy / trusted.clamp(min=1)
