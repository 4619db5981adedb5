"""Sharpening: real masks that are off come nearer to the truth, and where the image lies makes no difference."""

import cv2
import numpy as np
import pytest
from real_labels import otsu, real_pairs, wheel_nuclei

from shared import strips
from shared.metrics import Tally, tally
from shared.sharpen import REACH, sharpened

IMAGE, _ = wheel_nuclei()
KERNEL = np.ones((3, 3), np.uint8)


@pytest.mark.parametrize("folder", ["dsb2018/fluo", "dsb2018/histo_purple", "dsb2018/histo_light"])
@pytest.mark.parametrize("moved", ["in", "out"])
def test_a_border_that_is_off_is_put_right(folder, moved):
    """The true masks, 2 px too small or too large, of bright nuclei and of dark ones."""
    off, put_right = Tally(), Tally()
    for image, truth in real_pairs(folder, 20):
        change = cv2.erode if moved == "in" else cv2.dilate
        mask = change((truth > 0).astype(np.uint8), KERNEL, iterations=2)
        off += tally(truth, mask, instances=False)
        better = sharpened(image if image.ndim == 3 else image[..., None], mask)
        put_right += tally(truth, better, instances=False)
    assert put_right.metrics()["dice"] > off.metrics()["dice"] + 0.01


def test_what_the_mask_leaves_out_stays_out():
    mask = otsu(IMAGE)
    mask[:, 256:] = 0
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * REACH + 1, 2 * REACH + 1))
    result = sharpened(IMAGE[..., None], mask)
    assert result.dtype == np.uint8 and result.any() and not (result & ~cv2.dilate(mask, kernel)).any()


@pytest.mark.parametrize("rows", [64, 100, 4096])
def test_strips_and_memory_maps_give_the_same(rows, tmp_path, monkeypatch):
    image, mask = IMAGE[..., None], otsu(IMAGE)
    on_disk = np.memmap(tmp_path / "image", image.dtype, "w+", shape=image.shape)
    on_disk[...] = image
    expected = sharpened(image, mask)
    monkeypatch.setattr(strips, "ROWS", rows)
    for given in (image, on_disk):
        assert (sharpened(given, mask) != expected).mean() < 1e-5  # sums over strips round differently


@pytest.mark.parametrize("value", [0, 1])
def test_a_mask_of_one_value_is_left_alone(value):
    mask = np.full((20, 30), value, np.uint8)
    assert np.array_equal(sharpened(IMAGE[:20, :30, None], mask), mask)
