"""Sharpening: real masks that are off come nearer to the truth, and where the image lies makes no difference."""

import cv2
import numpy as np
import pytest
from real_labels import otsu, real_pairs, wheel_nuclei

from shared.imaging import row_strips as strips
from shared.instances.border_refinement import REACH, refine_border
from shared.metrics.tally import Tally, tally

IMAGE, _ = wheel_nuclei()
KERNEL = np.ones((3, 3), np.uint8)


@pytest.mark.parametrize(
    ("folder", "how", "moved"),
    [
        ("dsb2018/fluo", "means", "in"),
        ("dsb2018/fluo", "means", "out"),
        ("dsb2018/histo_purple", "means", "in"),
        ("dsb2018/histo_purple", "means", "out"),
        ("dsb2018/histo_light", "means", "in"),
        ("dsb2018/histo_light", "means", "out"),
        ("usiigaci/labelled", "edges", "out"),
    ],
)
def test_a_border_that_is_off_is_put_right(folder, how, moved):
    """The true masks, some px too small or too large: of bright nuclei, of dark ones, of phase contrast."""
    off, put_right = Tally(), Tally()
    for image, truth in real_pairs(folder, 20):
        change = cv2.erode if moved == "in" else cv2.dilate
        mask = change((truth > 0).astype(np.uint8), KERNEL, iterations=2 if how == "means" else 3)
        off += tally(truth, mask, instances=False)
        better = refine_border(image if image.ndim == 3 else image[..., None], mask, how)
        put_right += tally(truth, better, instances=False)
    assert put_right.metrics()["dice"] > off.metrics()["dice"] + 0.01


def test_borders_move_to_edges_as_far_as_is_allowed():
    """A disc drawn 3 px too large is put right, one drawn 10 px too large is not, and a line of 3 px stays."""
    y, x = np.indices((120, 240))
    image = ((np.hypot(y - 60, x - 60) < 20) | (np.hypot(y - 60, x - 180) < 20)).astype(np.float32)[..., None]
    mask = ((np.hypot(y - 60, x - 60) < 23) | (np.hypot(y - 60, x - 180) < 30)).astype(np.uint8)
    mask[110:113, 20:220] = 1
    result = refine_border(image, mask, "edges")
    assert (result[:, :105] != image[:, :105, 0])[:105].mean() < 0.01
    assert result[60, 180 + 24] and result[111, 30:210].all()


def test_what_the_mask_leaves_out_stays_out():
    mask = otsu(IMAGE)
    mask[:, 256:] = 0
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * REACH + 1, 2 * REACH + 1))
    result = refine_border(IMAGE[..., None], mask, "means")
    assert result.dtype == np.uint8 and result.any() and not (result & ~cv2.dilate(mask, kernel)).any()


@pytest.mark.parametrize("how", ["means", "edges"])
@pytest.mark.parametrize("rows", [64, 100, 4096])
def test_strips_and_memory_maps_give_the_same(rows, how, tmp_path, monkeypatch):
    image, mask = IMAGE[..., None], otsu(IMAGE)
    on_disk = np.memmap(tmp_path / "image", image.dtype, "w+", shape=image.shape)
    on_disk[...] = image
    expected = refine_border(image, mask, how)
    assert (expected != mask).any()
    monkeypatch.setattr(strips, "ROWS", rows)
    found = [refine_border(given, mask, how) for given in (image, on_disk)]
    assert np.array_equal(*found)
    assert (found[0] != expected).mean() < 1e-4  # of equal floods the first goes first


@pytest.mark.parametrize("how", ["means", "edges"])
@pytest.mark.parametrize("value", [0, 1])
def test_a_mask_of_one_value_is_left_alone(value, how):
    mask = np.full((20, 30), value, np.uint8)
    assert np.array_equal(refine_border(IMAGE[:20, :30, None], mask, how), mask)


def test_nothing_moves_where_that_is_asked_for():
    assert np.array_equal(refine_border(IMAGE[..., None], otsu(IMAGE), "none"), otsu(IMAGE))
