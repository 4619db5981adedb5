"""Losses of the segmentor's maps against masks that are only partly trusted.

Over the whole batch, wherever its parts are: see `shared.training.distributed`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from shared.system.collectives import total

DICE_WEIGHT = 0.5
DEPTH_WEIGHT = 1.0
"""Of `depth_loss`, beside the foreground's loss."""
LEVELS = 1024
"""Steps that errors are ranked by, from none to infinite loss."""


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


@torch.no_grad()
def without_worst(logits: Tensor, target: Tensor, weight: Tensor, share: float) -> Tensor:
    """`weight` with 0 where the loss is largest: in that share of the pixels that are known, over the whole batch.

    Pruned as in Zhang & Sabuncu (2018, arXiv:1805.07836, section 3.3), but pixel by pixel: a network learns what most
    of the masks have in common before it learns their errors (Arpit et al. 2017, arXiv:1706.05394). Errors that are
    little trusted anyway stay. logits, target {0, 1}, weight in [0, 1]: (N, H, W).
    """
    wrong = 1 - torch.exp(-F.binary_cross_entropy_with_logits(logits, target, weight, reduction="none"))
    counts = total(torch.histc(wrong[weight > 0], LEVELS, 0, 1))
    kept = counts.cumsum(0) <= (1 - share) * counts.sum()
    limit = (kept.sum() + 1) / LEVELS  # the level that the share begins in is kept whole
    return torch.where(wrong > limit, 0, weight)


def depth_loss(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted binary cross-entropy of depths, a scalar: least where sigmoid(logits) is the target.

    logits, target and weight in [0, 1]: (N, H, W).
    """
    entropy = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
    entropy, trusted = total(torch.stack([entropy, weight.sum()]))
    return entropy / trusted.clamp(min=1)
