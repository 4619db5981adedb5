"""Boxes move with the pixels, in every orientation, mosaic and mixup; what is cut away is dropped."""

from pathlib import Path

import numpy as np
import pytest
from real_labels import wheel_nuclei
from scipy.ndimage import find_objects
from small_segmentor import write_images

from shared.artifacts.image_set import ImageReader
from shared.data.box_crops import BoxCrops, BoxWindow, join_quadrants, mixup
from shared.data.boxes import Boxes, densest, join
from shared.imaging.normalise import Normalisation
from shared.models.config import ModelInput
from shared.training.seeds import step_generator

PLAIN = Normalisation(low=0, high=100)
"""Keeps 0 at 0 and the highest value at 1 in these images."""


def boxes_of(labels: np.ndarray) -> Boxes:
    """Boxes of a label image whose instance n is of class n % 3."""
    spans = [(n, span) for n, span in enumerate(find_objects(labels.astype(np.int32)), 1) if span]
    corners = [(x.start, y.start, x.stop, y.stop) for _, (y, x) in spans]
    return Boxes(np.array(corners, np.float32), np.array([n % 3 for n, _ in spans]))


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> BoxCrops:
    """The true nuclei drawn as three grey values, so that the pixels of a crop tell its boxes and classes."""
    _, labels = wheel_nuclei()
    drawn = np.where(labels > 0, (labels % 3 + 1) * 80, 0).astype(np.uint16)
    parts = {"a": labels[:200], "b": labels[200:, :300]}
    images = {"a": drawn[:200, :, None], "b": drawn[200:, :300, None]}
    folder = write_images(tmp_path_factory.mktemp("crops") / "images", images)
    boxes = {key: boxes_of(part) for key, part in parts.items()}
    return BoxCrops(
        ImageReader(folder),
        boxes,
        ["a", "b"],
        size=(96, 128),
        model_input=ModelInput(channels=1, normalisation=PLAIN),
    )


def filled(pixels: np.ndarray, box: np.ndarray, name: int) -> float:
    """Share of a box's pixels that have the grey value of its class."""
    x0, y0, x1, y1 = box.round().astype(int)
    return float((abs(pixels[y0:y1, x0:x1, 0] - (name + 1) / 3) < 0.05).mean())


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("flip", [False, True])
def test_boxes_move_with_the_pixels(crops, turns, flip):
    size = (96, 128)
    sides = (120, 160) if turns % 2 == 0 else (160, 120)
    pixels, boxes = crops.cut(BoxWindow("a", 30, 100, *sides, size, turns, flip))
    assert pixels.shape == (*size, 1) and pixels.dtype == np.float32
    assert len(boxes) >= 5
    assert (boxes.corners >= 0).all() and (boxes.corners <= [128, 96, 128, 96]).all()
    assert np.mean([filled(pixels, *one) for one in zip(boxes.corners, boxes.classes, strict=True)]) > 0.6
    ends = [pixels[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1)), 0] for x0, y0, x1, y1 in boxes.corners]
    for part, name in zip(ends, boxes.classes, strict=True):  # the object reaches to each side of its box
        own = abs(part - (name + 1) / 3) < 0.1
        rows, columns = np.flatnonzero(own.any(axis=1)), np.flatnonzero(own.any(axis=0))
        assert rows[0] <= 2 and columns[0] <= 2 and rows[-1] >= len(part) - 3 and columns[-1] >= part.shape[1] - 3


def test_a_window_beyond_the_image_is_padded_with_zeros(crops):
    pixels, boxes = crops.cut(BoxWindow("b", -50, -20, 400, 400, (400, 400)))
    assert (pixels[:50] == 0).all() and (pixels[:, :20] == 0).all() and (pixels[362:] == 0).all()
    np.testing.assert_array_equal(boxes.corners - [20, 50, 20, 50], crops.boxes["b"].corners)


def test_boxes_mostly_cut_away_are_dropped():
    boxes = Boxes(np.array([[-10, 0, 10, 20], [-16, 0, 4, 20], [5, 5, 6, 15], [-50, -50, 90, 90]]), np.arange(4))
    kept = boxes.clip((40, 40))
    assert kept.classes.tolist() == [0, 3]
    np.testing.assert_array_equal(kept.corners, [[0, 0, 10, 20], [0, 0, 40, 40]])
    np.testing.assert_allclose(kept.shares((40, 40)), [[0.125, 0.25, 0.25, 0.5], [0.5, 0.5, 1, 1]])
    assert len(Boxes.none().clip((40, 40))) == 0 and Boxes.none().shares((40, 40)).shape == (0, 4)


def test_mosaic_and_mixup_keep_pixels_and_boxes_together(crops):
    scores = []
    for step in range(8):
        pixels, boxes = crops.mosaic(step_generator(0, step))
        assert pixels.shape == (96, 128, 1)
        scores += [filled(pixels, *one) for one in zip(boxes.corners, boxes.classes, strict=True)]
    assert len(scores) > 40 and np.mean(scores) > 0.6
    one, other = (crops.cut(crops.windows(1, step_generator(1, step))[0]) for step in range(2))
    pixels, boxes = mixup(one, other)
    np.testing.assert_allclose(pixels, (one[0] + other[0]) / 2)
    assert len(boxes) == len(one[1]) + len(other[1])
    assert len(join([])) == 0


def test_quadrants_lie_where_their_boxes_say():
    parts = [
        np.full((size), value, np.float32) for value, size in enumerate([(2, 3, 1), (2, 5, 1), (6, 3, 1), (6, 5, 1)])
    ]
    whole = Boxes(np.array([[0, 0, 1, 1]], np.float32), np.array([0]))
    pixels, boxes = join_quadrants([(part, whole) for part in parts], (8, 8))
    np.testing.assert_array_equal(boxes.corners[:, :2], [[0, 0], [3, 0], [0, 2], [3, 2]])
    assert [pixels[int(y), int(x), 0] for x, y in boxes.corners[:, :2]] == [0, 1, 2, 3]


def test_a_step_gives_the_same_crops_and_steps_differ(crops):
    first, again, other = (crops.windows(4, step_generator(0, step)) for step in (0, 0, 1))
    assert first == again != other
    scales = {round(window.height / window.size[window.quarter_turns % 2], 3) for window in first}
    assert len(scales) > 1 and all(1 / 1.41 < scale < 1.41 for scale in scales)


def test_channels_and_bit_depth(tmp_path: Path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 65535, (64, 64, 5), np.uint16)
    folder = write_images(tmp_path / "images", {"a": image})
    crops = BoxCrops(ImageReader(folder), {}, ["a"], size=(64, 64), model_input=ModelInput(channels=5))
    pixels, boxes = crops.cut(BoxWindow("a", 0, 0, 64, 64, (64, 64)))
    np.testing.assert_allclose(pixels, ModelInput(channels=5).normalisation(image), atol=1e-6)
    assert len(boxes) == 0


def test_ignored_regions_are_blank_but_for_boxes(tmp_path: Path):
    folder = write_images(tmp_path / "images", {"a": np.arange(64 * 64, dtype=np.uint16).reshape(64, 64, 1) + 1000})
    boxes = Boxes(np.array([[20, 20, 30, 30]], np.float32), np.array([0]), np.array([[10, 10, 40, 40]], np.float32))
    crops = BoxCrops(ImageReader(folder), {"a": boxes}, ["a"], size=(64, 64), model_input=ModelInput(channels=1))
    pixels, kept = crops.cut(BoxWindow("a", 5, 5, 59, 59, (59, 59)))
    blank = pixels[..., 0] == 0
    assert blank[5:35, 5:35].sum() == 30 * 30 - 10 * 10 and not blank[15:25, 15:25].any()
    assert kept.classes.tolist() == [0]


def test_the_densest_tile():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 990, (400, 2)).astype(np.float32)
    boxes = Boxes(np.concatenate([corners, corners + 10], axis=1), np.zeros(400, np.int64))
    centres = corners + 5
    counts = [((centres >= start) & (centres < start + 256)).all(axis=1).sum() for start in centres - 5]
    assert 0.85 * max(counts) <= densest([boxes], 256) <= 1.2 * max(counts)
    assert densest([boxes], 1000) == 400 and densest([Boxes.none()], 100) == 0
