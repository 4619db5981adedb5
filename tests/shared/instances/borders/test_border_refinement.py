"""Border refinement: real masks whose border is off come nearer to the truth, whatever the strips."""

import cv2
import numpy as np
import pytest
from real_labels import otsu, real_pairs, wheel_nuclei

from shared.imaging import row_strips
from shared.instances.borders.border_refinement import MAX_MEANS_PX, refine_border
from shared.metrics.tally import Tally, tally

IMAGE, _ = wheel_nuclei()
KERNEL = np.ones((3, 3), np.uint8)


@pytest.mark.parametrize(
    ("folder", "method", "moved"),
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
def test_a_border_that_is_off_moves_towards_the_truth(folder, method, moved):
    """The true masks, some px too small or too large: of bright nuclei, of dark ones, of phase contrast."""
    before, after = Tally(), Tally()
    for image, truth in real_pairs(folder, 20):
        change = cv2.erode if moved == "in" else cv2.dilate
        mask = change((truth > 0).astype(np.uint8), KERNEL, iterations=2 if method == "means" else 3)
        before += tally(truth, mask, instances=False)
        better = refine_border(image if image.ndim == 3 else image[..., None], mask, method)
        after += tally(truth, better, instances=False)
    assert after.metrics()["dice"] > before.metrics()["dice"] + 0.01


def test_borders_move_to_edges_up_to_the_limit():
    """A disc 3 px too large is corrected, one 10 px too large is not, and a line of 3 px stays."""
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
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * MAX_MEANS_PX + 1, 2 * MAX_MEANS_PX + 1))
    result = refine_border(IMAGE[..., None], mask, "means")
    assert result.dtype == np.uint8 and result.any() and not (result & ~cv2.dilate(mask, kernel)).any()


@pytest.mark.parametrize("method", ["means", "edges"])
@pytest.mark.parametrize("rows", [64, 100, 4096])
def test_strips_give_the_same(rows, method, monkeypatch):
    image, mask = IMAGE[..., None], otsu(IMAGE)
    expected = refine_border(image, mask, method)
    assert (expected != mask).any()
    monkeypatch.setattr(row_strips, "ROWS", rows)
    found = refine_border(image, mask, method)
    assert (found != expected).mean() < 1e-4  # of equal levels, the one reached first is flooded first


@pytest.mark.parametrize("method", ["means", "edges"])
@pytest.mark.parametrize("value", [0, 1])
def test_a_mask_of_one_value_stays_unchanged(value, method):
    mask = np.full((20, 30), value, np.uint8)
    assert np.array_equal(refine_border(IMAGE[:20, :30, None], mask, method), mask)


def test_none_returns_the_mask_unchanged():
    assert np.array_equal(refine_border(IMAGE[..., None], otsu(IMAGE), "none"), otsu(IMAGE))
