"""Operations on label images against scikit-image's."""

import numpy as np
import pytest
from real_labels import wheel_nuclei
from skimage.measure import label
from skimage.morphology import remove_small_holes

from shared.instances.label_image import area_weighted_median, fill_holes, relabel, typical_area
from shared.instances.watershed import MAX_HOLE_PX

_, TRUTH = wheel_nuclei()
MASK = (TRUTH > 0).astype(np.uint8)


def same_objects(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two label images contain the same objects, whatever their numbers."""
    pairs = np.unique(np.stack([a.ravel(), b.ravel()]).astype(np.int64), axis=1)
    return len(pairs[0]) == len(set(pairs[0])) == len(set(pairs[1])) and bool((pairs[:, 0] == 0).all())


def test_holes_as_skimage_fills_them():
    noisy = MASK & (np.random.default_rng(0).random(MASK.shape) > 0.02)
    noisy = np.pad(noisy[1:-1, 1:-1], 1).astype(np.uint8)  # a frame of background that no hole touches
    # skimage counts background of connectivity 1; holes here are of connectivity 2, as their rim is of 1
    background = label(noisy == 0, connectivity=2)
    sizes = np.bincount(background.ravel())
    small = (sizes <= MAX_HOLE_PX) & (np.arange(len(sizes)) > 0)
    assert np.array_equal(fill_holes(noisy, MAX_HOLE_PX), noisy | small[background])
    solid = remove_small_holes(noisy.astype(bool), max_size=MAX_HOLE_PX, connectivity=2)
    assert np.array_equal(fill_holes(noisy, MAX_HOLE_PX).astype(bool), solid)


def test_background_at_the_border_is_not_a_hole():
    mask = np.ones((32, 32), np.uint8)
    mask[10:14, 0:4] = mask[20:24, 10:14] = 0
    filled = fill_holes(mask, 64)
    assert (filled[10:14, 0:4] == 0).all() and filled[20:24, 10:14].all()
    assert mask[20, 10] == 0  # the argument is unchanged


def test_relabel_keeps_objects():
    scrambled = np.where(TRUTH > 0, (TRUTH.astype(np.int64) * 7919) % 60_013 + 1, 0)
    assert same_objects(relabel(scrambled), TRUTH)
    assert np.array_equal(relabel(relabel(scrambled)), relabel(scrambled))


def test_the_typical_object_is_that_of_the_median_pixel():
    areas = np.array([3, 1, 100, 2, 40])
    assert typical_area(areas) == 100
    peaks = np.array([0.9, 0.8, 0.5, 0.7, 0.6])
    assert area_weighted_median(peaks, areas) == pytest.approx(np.sort(np.repeat(peaks, areas))[72])
