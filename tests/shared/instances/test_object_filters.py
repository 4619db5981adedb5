"""What a segmentor is sure of: hysteresis against scikit-image's, and depth against objects counted one by one."""

import numpy as np
import pytest
from real_labels import otsu, wheel_nuclei
from scipy import ndimage
from skimage.filters import apply_hysteresis_threshold

from shared.instances.distance import instance_distance
from shared.instances.label_image import typical
from shared.instances.object_filters import component_peaks, drop_flat_objects, hysteresis
from shared.instances.postprocess import find
from shared.instances.watershed import split_touching

IMAGE, TRUTH = wheel_nuclei()
PLANE = ndimage.gaussian_filter(IMAGE.astype(np.float32), 1) / np.float32(IMAGE.max())


def between(low: float, high: float) -> tuple[float, float]:
    """Two quantiles of the smoothed image."""
    return float(np.quantile(PLANE, low)), float(np.quantile(PLANE, high))


@pytest.mark.parametrize("rows", [50, 512, 4096])
@pytest.mark.parametrize("quantiles", [(0.7, 0.95), (0.9, 0.99), (0.5, 1.0)])
def test_pieces_are_those_of_hysteresis_thresholding(quantiles, rows, tmp_path):
    threshold, sure = between(*quantiles)
    mask = np.greater_equal(PLANE, threshold).astype(np.uint8)
    on_disk = np.memmap(tmp_path / "plane", np.float32, "w+", shape=PLANE.shape)
    on_disk[...] = PLANE
    expected = apply_hysteresis_threshold(PLANE, np.nextafter(threshold, 0), np.nextafter(sure, 0))
    for given in (PLANE, on_disk):
        kept = hysteresis(mask, given, sure, rows)
        assert kept.dtype == np.uint8 and np.array_equal(kept > 0, expected)
    assert 0 < expected.sum() < mask.sum()


def test_nothing_is_sure_where_nothing_reaches_it():
    mask = otsu(IMAGE)
    assert not hysteresis(mask, mask * np.float32(0.8), 0.9, 512).any()
    assert np.array_equal(hysteresis(mask, mask * np.float32(0.9), np.float32(0.9), 512), mask)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_objects_without_a_middle_are_dropped(share):
    """The smoothed image stands for the depth: dim nuclei are those that go."""
    labels = split_touching(otsu(IMAGE))
    kept = drop_flat_objects(labels, PLANE, share, rows=100)
    peaks = {number: PLANE[labels == number].max() for number in range(1, int(labels.max()) + 1)}
    by_pixel = np.sort(np.concatenate([np.full((labels == number).sum(), peak) for number, peak in peaks.items()]))
    limit = share * by_pixel[(len(by_pixel) + 1) // 2 - 1]
    stay = [number for number, peak in peaks.items() if peak >= limit]
    assert np.array_equal(kept > 0, np.isin(labels, stay))
    assert np.array_equal(np.unique(kept), np.arange(len(stay) + 1))
    assert kept.dtype == labels.dtype


def test_a_share_of_nothing_keeps_everything():
    labels = split_touching(otsu(IMAGE))
    assert np.array_equal(drop_flat_objects(labels, PLANE, 0.0), labels)
    empty = np.zeros((20, 20), np.uint16)
    assert np.array_equal(drop_flat_objects(empty, empty.astype(np.float32), 0.6), empty)


def test_specks_in_the_noise_are_no_cells():
    """Beside real nuclei, which are deep and sure: specks that are one of the two only, or neither."""
    true = TRUTH[:256, :256]
    probability = np.where(true > 0, np.float32(0.97), np.float32(0.03))
    depth = instance_distance(true)
    background = ndimage.distance_transform_edt(true == 0) > 8
    y, x = (at[0] for at in np.nonzero(background & (np.indices(true.shape).min(axis=0) > 8)))
    speck = np.s_[y - 3 : y + 3, x - 3 : x + 3]
    image = np.zeros((*true.shape, 1), np.float32)

    def found(sure: float, peak: float, middle: float) -> bool:
        maps = np.stack([probability, depth])
        maps[0][speck], maps[1][speck] = peak, middle
        labels = find(maps, image, sure=sure, sharpen="none").cells(0.8, min_area_share=0)
        assert len(np.unique(labels)) > 10
        return bool(labels[speck].any())

    assert found(0.9, 0.95, 0.8) and found(0.0, 0.6, 0.8)
    assert not found(0.9, 0.6, 0.8) and not found(0.9, 0.95, 0.3) and not found(0.0, 0.6, 0.3)


def test_peaks_are_those_of_scipy():
    mask = otsu(IMAGE)
    peak, area = component_peaks(mask, PLANE)
    pieces, count = ndimage.label(mask)
    numbers = np.arange(1, count + 1)
    assert sorted(zip(area, peak, strict=True)) == sorted(
        zip(ndimage.sum_labels(mask, pieces, numbers), ndimage.maximum(PLANE, pieces, numbers), strict=True)
    )
    assert typical(peak, area) == pytest.approx(np.median(np.repeat(peak, area)), abs=1e-3)
