"""Object filters: hysteresis against scikit-image's, and distances against objects counted one by one."""

import numpy as np
import pytest
from real_labels import otsu, wheel_nuclei
from scipy import ndimage
from skimage.filters import apply_hysteresis_threshold

from shared.imaging import row_strips
from shared.instances.label_image import area_weighted_median
from shared.instances.object_filters import component_peaks, drop_flat_objects, hysteresis
from shared.instances.watershed import split_touching

IMAGE, TRUTH = wheel_nuclei()
PLANE = ndimage.gaussian_filter(IMAGE.astype(np.float32), 1) / np.float32(IMAGE.max())


def quantile_values(low: float, high: float) -> tuple[float, float]:
    """Two quantiles of the smoothed image."""
    return float(np.quantile(PLANE, low)), float(np.quantile(PLANE, high))


@pytest.mark.parametrize("rows", [50, 512, 4096])
@pytest.mark.parametrize("quantiles", [(0.7, 0.95), (0.9, 0.99), (0.5, 1.0)])
def test_components_are_those_of_hysteresis_thresholding(quantiles, rows, tmp_path):
    low, high = quantile_values(*quantiles)
    mask = np.greater_equal(PLANE, low).astype(np.uint8)
    on_disk = np.memmap(tmp_path / "plane", np.float32, "w+", shape=PLANE.shape)
    on_disk[...] = PLANE
    expected = apply_hysteresis_threshold(PLANE, np.nextafter(low, 0), np.nextafter(high, 0))
    for given in (PLANE, on_disk):
        kept = hysteresis(mask, given, high, rows)
        assert kept.dtype == np.uint8 and np.array_equal(kept > 0, expected)
    assert 0 < expected.sum() < mask.sum()


def test_nothing_is_kept_where_nothing_reaches_the_high_threshold():
    mask = otsu(IMAGE)
    assert not hysteresis(mask, mask * np.float32(0.8), 0.9).any()
    assert np.array_equal(hysteresis(mask, mask * np.float32(0.9), np.float32(0.9)), mask)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_flat_objects_are_dropped(share, monkeypatch):
    """The smoothed image stands for the distance map: dim nuclei are dropped."""
    labels = split_touching(otsu(IMAGE))
    monkeypatch.setattr(row_strips, "ROWS", 100)
    kept = drop_flat_objects(labels, PLANE, share)
    peaks = {number: PLANE[labels == number].max() for number in range(1, int(labels.max()) + 1)}
    by_pixel = np.sort(np.concatenate([np.full((labels == number).sum(), peak) for number, peak in peaks.items()]))
    limit = share * by_pixel[(len(by_pixel) + 1) // 2 - 1]
    stay = [number for number, peak in peaks.items() if peak >= limit]
    assert np.array_equal(kept > 0, np.isin(labels, stay))
    assert np.array_equal(np.unique(kept), np.arange(len(stay) + 1))
    assert kept.dtype == labels.dtype


def test_a_share_of_0_keeps_everything():
    labels = split_touching(otsu(IMAGE))
    assert np.array_equal(drop_flat_objects(labels, PLANE, 0.0), labels)
    empty = np.zeros((20, 20), np.uint16)
    assert np.array_equal(drop_flat_objects(empty, empty.astype(np.float32), 0.6), empty)


def test_peaks_are_those_of_scipy():
    mask = otsu(IMAGE)
    peak, area = component_peaks(mask, PLANE)
    components, count = ndimage.label(mask)
    numbers = np.arange(1, count + 1)
    assert sorted(zip(area, peak, strict=True)) == sorted(
        zip(ndimage.sum_labels(mask, components, numbers), ndimage.maximum(PLANE, components, numbers), strict=True)
    )
    assert area_weighted_median(peak, area) == pytest.approx(np.median(np.repeat(peak, area)), abs=1e-3)
