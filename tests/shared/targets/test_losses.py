"""The losses against their definitions in NumPy."""

import numpy as np
import pytest
import torch

from shared.targets.losses import LOSS_BINS, cross_entropy_and_dice, drop_largest_losses


def test_cross_entropy_and_half_a_dice_of_pixels_with_confidence() -> None:
    rng = np.random.default_rng(0)
    logits, weight = rng.normal(size=(2, 8, 8)), rng.random((2, 8, 8))
    target = (rng.random((2, 8, 8)) > 0.5).astype(float)
    weight[0] = 0
    p = 1 / (1 + np.exp(-logits))
    entropy = -(weight * (target * np.log(p) + (1 - target) * np.log(1 - p))).sum() / weight.sum()
    overlap = (2 * (weight * p * target).sum() + 1) / ((weight * (p + target)).sum() + 1)
    tensors = [torch.from_numpy(array) for array in (logits, target, weight)]
    assert cross_entropy_and_dice(*tensors).item() == pytest.approx(entropy + 0.5 * (1 - overlap))
    tensors[0][0] = 99.0
    assert cross_entropy_and_dice(*tensors).item() == pytest.approx(entropy + 0.5 * (1 - overlap))
    nothing = cross_entropy_and_dice(tensors[0], tensors[1], torch.zeros_like(tensors[2]))
    assert nothing.item() == 0


@pytest.mark.parametrize("fraction", [0.05, 0.3])
def test_the_pixels_of_the_largest_loss_are_dropped(fraction: float) -> None:
    rng = np.random.default_rng(0)
    logits, weight = rng.normal(size=(2, 64, 64)), rng.choice([0, 0.5, 1], (2, 64, 64))
    target = (rng.random((2, 64, 64)) > 0.5).astype(float)
    left = drop_largest_losses(*(torch.from_numpy(array) for array in (logits, target, weight)), fraction).numpy()
    loss = weight * np.where(target > 0, np.logaddexp(0, -logits), np.logaddexp(0, logits))
    largest = loss > np.quantile(loss[weight > 0], 1 - fraction)
    assert (left[~largest] == weight[~largest]).all()
    assert ((left > 0) & largest).sum() <= 3 * (weight > 0).sum() / LOSS_BINS < ((left == 0) & (weight > 0)).sum()


def test_without_confidence_nothing_is_dropped() -> None:
    zeros = torch.zeros(1, 4, 4)
    assert drop_largest_losses(zeros, zeros, zeros, 0.1).sum() == 0
