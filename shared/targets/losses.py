"""Losses of maps against labels of limited confidence, over the batch of all processes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from shared.system.collectives import total

DICE_WEIGHT = 0.5
"""Weight of the Dice loss beside the cross-entropy."""
LOSS_BINS = 1024
"""Bins of the histogram by which losses are ranked."""


def cross_entropy_and_dice(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted binary cross-entropy plus half a soft Dice loss (Milletari et al. 2016, arXiv:1606.04797), a scalar.

    logits, target {0, 1}, weight in [0, 1]: (N, H, W). Pixels of weight 0 contribute to neither term.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
    probability = torch.sigmoid(logits)
    overlap = (weight * probability * target).sum()
    both = (weight * (probability + target)).sum()
    entropy, overlap, both, weights = total(torch.stack([entropy, overlap, both, weight.sum()]))
    return entropy / weights.clamp(min=1) + DICE_WEIGHT * (1 - (2 * overlap + 1) / (both + 1))


def weighted_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weighted binary cross-entropy with a soft target, a scalar; minimal where sigmoid(logits) equals the target.

    logits, target and weight in [0, 1]: (N, H, W).
    """
    entropy = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum")
    entropy, weights = total(torch.stack([entropy, weight.sum()]))
    return entropy / weights.clamp(min=1)


@torch.no_grad()
def drop_largest_losses(logits: Tensor, target: Tensor, weight: Tensor, fraction: float) -> Tensor:
    """Set `weight` to 0 for the pixels of largest loss: that fraction of the pixels of weight above 0, over the batch.

    Pruning as in Zhang & Sabuncu (2018, arXiv:1805.07836, section 3.3), but pixel by pixel: a network learns what most
    of the masks have in common before it learns their errors (Arpit et al. 2017, arXiv:1706.05394).
    logits, target {0, 1}, weight in [0, 1]: (N, H, W).
    """
    error = 1 - torch.exp(-F.binary_cross_entropy_with_logits(logits, target, weight, reduction="none"))
    counts = total(torch.histc(error[weight > 0], LOSS_BINS, 0, 1))
    kept = counts.cumsum(0) <= (1 - fraction) * counts.sum()
    limit = (kept.sum() + 1) / LOSS_BINS  # the bin in which the fraction begins is kept whole
    return torch.where(error > limit, 0, weight)


def weighted_squared_error(found: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Squared length of the difference of vectors (N, C, H, W), weighted by (N, H, W) in [0, 1]: a scalar."""
    error = ((found - wanted).square().sum(dim=1) * weight).sum()
    error, weights = total(torch.stack([error, weight.sum()]))
    return error / weights.clamp(min=1)
