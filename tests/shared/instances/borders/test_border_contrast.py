"""Border weight: low where real cells touch, and independent of the strips that an image is processed in."""

import cv2
import numpy as np
import pytest
from real_labels import otsu, real_pairs, wheel_nuclei

from shared.imaging import row_strips
from shared.imaging.grey import grey
from shared.instances.borders import border_contrast
from shared.instances.borders.border_contrast import DECAY, MAX_EXCESS, border_weight, weight_by_border_contrast
from shared.instances.distance import separate_instances
from shared.instances.watershed import split_touching
from shared.metrics.tally import Tally, tally

IMAGE, TRUTH = wheel_nuclei()


def with_channels(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 3 else image[..., None]


@pytest.mark.parametrize("folder", ["dsb2018/fluo", "usiigaci/labelled"])
def test_pixels_that_look_as_the_border_get_a_low_weight(folder):
    """Where two cells touch it is darker in fluorescence, lighter in phase contrast; tissue shows it less."""
    between, inside = [], []
    for image, truth in real_pairs(folder, 12):
        mask = (truth > 0).astype(np.uint8)
        weight = border_weight(grey(with_channels(image)), mask)
        assert weight.shape == truth.shape and weight.dtype == np.float32
        assert weight.min() >= np.exp(np.float32(-DECAY * MAX_EXCESS)) and weight.max() == 1
        between.append(weight[(mask > 0) & (separate_instances(truth) == 0)])
        inside.append(weight[cv2.erode(separate_instances(truth), np.ones((9, 9), np.uint8)) > 0])
    assert np.concatenate(between).mean() < np.concatenate(inside).mean() - 0.03


def test_it_splits_cells_that_a_dilated_mask_joins():
    without, weighted = Tally(), Tally()
    for image, truth in real_pairs("usiigaci/labelled", 6):
        mask = cv2.dilate((truth > 0).astype(np.uint8), np.ones((9, 9), np.uint8))
        without += tally(truth, split_touching(mask))
        weighted += tally(truth, split_touching(mask, distance=border_weight(grey(with_channels(image)), mask)))
    assert weighted.metrics()["f1"] > without.metrics()["f1"]


@pytest.mark.parametrize("empty", [0, 1])
def test_a_mask_without_a_border_gives_weight_1(empty):
    assert (border_weight(np.zeros((20, 20), np.float32), np.full((20, 20), empty, np.uint8)) == 1).all()


@pytest.mark.parametrize("rows", [64, 100, 4096])
def test_strips_and_memory_maps_give_the_same(rows, tmp_path, monkeypatch):
    """Of an image whose pixels are all sampled; of a larger one the same pixels are sampled."""
    image, mask = IMAGE[..., None], otsu(IMAGE)
    whole = border_weight(grey(image), mask)
    monkeypatch.setattr(row_strips, "ROWS", rows)
    for distance in (
        np.empty(mask.shape, np.float32),
        np.memmap(tmp_path / "distance", np.float32, "w+", shape=mask.shape),
    ):
        distance[...] = 0.5
        weight_by_border_contrast(distance, image, mask)
        np.testing.assert_allclose(distance, 0.5 * whole, atol=1e-6)


def test_the_sample_does_not_depend_on_the_strips(monkeypatch):
    image, mask = IMAGE[..., None], otsu(IMAGE)
    monkeypatch.setattr(border_contrast, "_MAX_SAMPLED_PX", 512 * 512 // 49)
    distances = []
    for rows in (64, 100, 4096):
        monkeypatch.setattr(row_strips, "ROWS", rows)
        distances.append(np.ones(mask.shape, np.float32))
        weight_by_border_contrast(distances[-1], image, mask)
    for other in distances[1:]:
        np.testing.assert_allclose(other, distances[0], atol=1e-6)
    assert distances[0].min() < 1
