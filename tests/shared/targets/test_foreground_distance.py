"""Foreground and distance: planes against SciPy's distance transform, and the loss against its definition."""

import numpy as np
import pytest
import torch
from real_labels import wheel_nuclei
from scipy import ndimage

from shared.data.crops import Window
from shared.targets import foreground_distance as target


def test_the_distance_is_scipys_relative_to_each_instances_maximum() -> None:
    labels = wheel_nuclei()[1][:200, :200]
    planes = target.encode(labels, np.full(labels.shape, 51, np.uint8), "instances")
    assert (planes[..., 1] == 51).all() and (planes[..., 2][labels == 0] == 0).all()
    alone = 0
    for number in np.unique(labels)[1:]:
        inside = labels == number
        around = ndimage.binary_dilation(inside, np.ones((5, 5)))
        if inside[[0, -1]].any() or inside[:, [0, -1]].any() or set(np.unique(labels[around])) != {0, number}:
            continue  # cut off, or separated from a neighbour
        distance = ndimage.distance_transform_edt(inside)
        np.testing.assert_allclose(planes[inside, 2] / 255, (distance / distance.max())[inside], atol=0.003)
        alone += 1
    assert alone >= 5


def test_a_foreground_mask_is_split_before_distances_are_measured() -> None:
    y, x = np.mgrid[:60, :100]
    mask = (((y - 30) ** 2 + (x - 32) ** 2 < 400) | ((y - 30) ** 2 + (x - 68) ** 2 < 400)).astype(np.uint8)
    trusted = np.full(mask.shape, 255, np.uint8)
    split, whole = (target.encode(mask, trusted, kind)[..., 2] for kind in ("foreground", "instances"))
    assert split[30, 50] < 60 < whole[30, 50]  # between the two discs
    assert split[30, 32] > 230 and split[30, 68] > 230


def test_planes_are_scaled_to_0_and_1() -> None:
    labels = wheel_nuclei()[1][:64, :64]
    planes = target.encode(labels, np.full(labels.shape, 51, np.uint8), "instances")
    mask, confidence, distance = target.cut(planes, Window("", 0, 0, 64), 64)
    assert set(np.unique(mask)) == {0, 1}
    np.testing.assert_allclose(confidence, 0.2, rtol=1e-6)
    assert distance.max() == pytest.approx(1, abs=1e-6) and distance.min() == 0


def test_the_loss_is_that_of_foreground_and_distance() -> None:
    rng = np.random.default_rng(0)
    logits, mask = rng.normal(size=(2, 2, 8, 8)), rng.random((2, 8, 8)) > 0.5
    weight, distance = rng.random((2, 8, 8)), rng.random((2, 8, 8))
    p, q = (1 / (1 + np.exp(-logits[:, i])) for i in range(2))
    entropy = -(weight * (mask * np.log(p) + (1 - mask) * np.log(1 - p))).sum() / weight.sum()
    dice = (2 * (weight * p * mask).sum() + 1) / ((weight * (p + mask)).sum() + 1)
    distance_loss = -(weight * (distance * np.log(q) + (1 - distance) * np.log(1 - q))).sum() / weight.sum()
    planes = torch.from_numpy(np.stack([mask, weight, distance], axis=1).astype(np.float64))
    expected = entropy + 0.5 * (1 - dice) + target.DISTANCE_WEIGHT * distance_loss
    assert target.loss(torch.from_numpy(logits), planes).item() == pytest.approx(expected)
