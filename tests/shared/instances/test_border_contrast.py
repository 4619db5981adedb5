"""Border depth: on real touching cells, and the same whether an image is in memory or on disk."""

import cv2
import numpy as np
import pytest
from real_labels import otsu, real_pairs, wheel_nuclei

from shared.imaging import row_strips as strips
from shared.imaging.grey import grey
from shared.instances import border_contrast as borders
from shared.instances.border_contrast import border_weight, weight_by_border_contrast
from shared.instances.distance import separated
from shared.instances.postprocess import find
from shared.instances.watershed import split_touching
from shared.metrics.tally import Tally, tally

IMAGE, TRUTH = wheel_nuclei()


def with_channels(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 3 else image[..., None]


@pytest.mark.parametrize("folder", ["dsb2018/fluo", "usiigaci/labelled"])
def test_what_looks_as_the_border_does_is_shallow(folder):
    """Where two cells touch it is darker in fluorescence, lighter in phase contrast; tissue shows it less."""
    line, deep = [], []
    for image, truth in real_pairs(folder, 12):
        mask = (truth > 0).astype(np.uint8)
        depth = border_weight(grey(with_channels(image)), mask)
        assert depth.shape == truth.shape and depth.dtype == np.float32
        assert depth.min() >= np.exp(np.float32(-borders.FALL * borders.MOST)) and depth.max() == 1
        line.append(depth[(mask > 0) & (separated(truth) == 0)])
        deep.append(depth[cv2.erode(separated(truth), np.ones((9, 9), np.uint8)) > 0])
    assert np.concatenate(line).mean() < np.concatenate(deep).mean() - 0.03


def test_it_parts_cells_that_a_mask_too_large_has_joined():
    without, given = Tally(), Tally()
    for image, truth in real_pairs("usiigaci/labelled", 6):
        mask = cv2.dilate((truth > 0).astype(np.uint8), np.ones((9, 9), np.uint8))
        without += tally(truth, split_touching(mask))
        given += tally(truth, split_touching(mask, depth=border_weight(grey(with_channels(image)), mask)))
    assert given.metrics()["f1"] > without.metrics()["f1"]


@pytest.mark.parametrize("empty", [0, 1])
def test_a_mask_without_a_border_says_nothing(empty):
    assert (border_weight(np.zeros((20, 20), np.float32), np.full((20, 20), empty, np.uint8)) == 1).all()


@pytest.mark.parametrize("rows", [64, 100, 4096])
def test_strips_and_memory_maps_give_the_same(rows, tmp_path, monkeypatch):
    """Of an image that is looked at in full; of a larger one the same pixels are sampled."""
    image, mask = IMAGE[..., None], otsu(IMAGE)
    whole = border_weight(grey(image), mask)
    on_disk = np.memmap(tmp_path / "image", image.dtype, "w+", shape=image.shape)
    on_disk[...] = image
    monkeypatch.setattr(strips, "ROWS", rows)
    for given in (image, on_disk):
        depth = np.memmap(tmp_path / "depth", np.float32, "w+", shape=mask.shape)
        depth[...] = 0.5
        weight_by_border_contrast(depth, given, mask)
        np.testing.assert_allclose(depth, 0.5 * whole, atol=1e-6)


def test_what_is_sampled_does_not_depend_on_the_strips(monkeypatch):
    image, mask = IMAGE[..., None], otsu(IMAGE)
    monkeypatch.setattr(borders, "SAMPLED", 512 * 512 // 49)
    depths = []
    for rows in (64, 100, 4096):
        monkeypatch.setattr(strips, "ROWS", rows)
        depths.append(np.ones(mask.shape, np.float32))
        weight_by_border_contrast(depths[-1], image, mask)
    for other in depths[1:]:
        np.testing.assert_allclose(other, depths[0], atol=1e-6)
    assert depths[0].min() < 1


def test_found_cells_are_those_of_mask_and_depth():
    probability = otsu(IMAGE) * np.float32(0.9)
    alone = find(probability[None], IMAGE[..., None], sure=0.0, sharpen="none")
    assert alone.depth is None and np.array_equal(alone.cells(0.85), split_touching(otsu(IMAGE)))
    maps = np.stack([probability, np.ones_like(probability)])
    both = find(maps.copy(), IMAGE[..., None], sure=0.0, sharpen="none")
    assert np.array_equal(both.mask, otsu(IMAGE))
    np.testing.assert_allclose(both.depth, border_weight(grey(IMAGE[..., None]), both.mask), atol=1e-6)
    assert np.array_equal(both.cells(0.85, min_area=40), split_touching(both.mask, min_area=40, depth=both.depth))
