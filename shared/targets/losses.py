"""Losses of maps against labels that are only partly trusted, over the batch of all processes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from shared.system.collectives import total

DICE_WEIGHT = 0.5
LEVELS = 1024
"""Steps by which losses are ranked, from none to infinite."""


def cross_entropy_and_dice(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted binary cross-entropy plus half a soft Dice loss (Milletari et al. 2016, arXiv:1606.04797), a scalar.

    logits, target {0, 1}, weight in [0, 1]: (N, H, W). Pixels of weight 0 count in neither part.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
    probability = torch.sigmoid(logits)
    hit = (weight * probability * target).sum()
    both = (weight * (probability + target)).sum()
    entropy, hit, both, trusted = total(torch.stack([entropy, hit, both, weight.sum()]))
    return entropy / trusted.clamp(min=1) + DICE_WEIGHT * (1 - (2 * hit + 1) / (both + 1))


def weighted_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted binary cross-entropy of a soft target, a scalar: least where sigmoid(logits) is the target.

    logits, target and weight in [0, 1]: (N, H, W).
    """
    entropy = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
    entropy, trusted = total(torch.stack([entropy, weight.sum()]))
    return entropy / trusted.clamp(min=1)


@torch.no_grad()
def drop_largest_losses(logits: Tensor, target: Tensor, weight: Tensor, fraction: float) -> Tensor:
    """`weight` with 0 where the loss is largest: in that fraction of the pixels of weight above 0, over the batch.

    Pruned as in Zhang & Sabuncu (2018, arXiv:1805.07836, section 3.3), but pixel by pixel: a network learns what most
    of the masks have in common before it learns their errors (Arpit et al. 2017, arXiv:1706.05394).
    logits, target {0, 1}, weight in [0, 1]: (N, H, W).
    """
    wrong = 1 - torch.exp(-F.binary_cross_entropy_with_logits(logits, target, weight, reduction="none"))
    counts = total(torch.histc(wrong[weight > 0], LEVELS, 0, 1))
    kept = counts.cumsum(0) <= (1 - fraction) * counts.sum()
    limit = (kept.sum() + 1) / LEVELS  # the level in which the fraction begins is kept whole
    return torch.where(wrong > limit, 0, weight)
