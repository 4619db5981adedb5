"""Overlays against scikit-image's boundaries, and pictures of every kind of image."""

import numpy as np
import pytest
from real_labels import wheel_nuclei
from skimage.segmentation import find_boundaries

from shared.imaging.overlays import (
    colour_labels,
    inner_boundaries,
    outline,
    outline_boxes,
    side_by_side,
    thumbnail,
    to_rgb8,
)

IMAGE, TRUTH = wheel_nuclei()


def test_boundaries_are_the_inner_ones_of_skimage():
    assert np.array_equal(inner_boundaries(TRUTH), find_boundaries(TRUTH, connectivity=1, mode="inner"))
    assert np.array_equal(inner_boundaries(TRUTH.astype(np.uint32)), inner_boundaries(TRUTH))


def test_outline_draws_edges_alone():
    rgb = to_rgb8(IMAGE)
    before = rgb.copy()
    drawn = outline(rgb, TRUTH, (1, 2, 3))
    edge = inner_boundaries(TRUTH)
    assert (drawn[edge] == (1, 2, 3)).all() and np.array_equal(drawn[~edge], rgb[~edge])
    assert np.array_equal(rgb, before)
    thick = outline(rgb, TRUTH, (1, 2, 3), width=3)
    assert (thick == (1, 2, 3)).all(axis=2).sum() > 2 * edge.sum()
    assert np.array_equal(thick[TRUTH == 0], rgb[TRUTH == 0])
    with pytest.raises(ValueError, match="labels are"):
        outline(rgb[:-1], TRUTH)


def test_boxes_are_drawn_as_the_outlines_of_filled_ones():
    rgb = to_rgb8(IMAGE)
    boxes = [(10.0, 20.0, 30.0, 12.0), (100.0, 60.0, 50.0, 80.0)]
    filled = np.zeros(IMAGE.shape[:2], np.uint8)
    for number, (x, y, width, height) in enumerate(boxes, 1):
        filled[int(y) : int(y + height), int(x) : int(x + width)] = number
    assert np.array_equal(outline_boxes(rgb, boxes), outline(rgb, filled))
    assert np.array_equal(rgb, to_rgb8(IMAGE)), "a copy is drawn on"
    thick = (outline_boxes(rgb, boxes, (1, 2, 3), width=2) == (1, 2, 3)).all(axis=2)
    assert not thick[filled == 0].any() and thick[22:24, 10].all() and thick[22, 10:12].all() and not thick[22, 12]
    half = outline_boxes(rgb[::2, ::2], boxes, scale=0.5)
    assert np.array_equal(half, outline(rgb[::2, ::2], filled[::2, ::2]))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_every_image_becomes_rgb(dtype, channels):
    image = np.stack([np.roll(IMAGE, 20 * c, 0) for c in range(channels)], axis=-1) / IMAGE.max()
    image = (image * (1 if np.dtype(dtype).kind == "f" else 250)).astype(dtype)
    before = image.copy()
    rgb = to_rgb8(image)
    assert rgb.shape == (*IMAGE.shape, 3) and rgb.dtype == np.uint8
    assert np.array_equal(image, before) and not np.shares_memory(image, rgb)
    assert rgb.min() == 0 and rgb.max() > 240
    if channels == 2:
        assert not rgb[..., 2].any()


def test_images_that_show_nothing():
    assert not to_rgb8(np.full((5, 7), 12, np.uint16)).any()
    assert not to_rgb8(np.full((5, 7, 1), np.nan, np.float32)).any()
    colour = np.random.default_rng(0).integers(0, 255, (5, 7, 3)).astype(np.uint8)
    assert np.array_equal(to_rgb8(colour), colour)


def test_colours_are_fixed_and_differ_between_neighbouring_numbers():
    coloured = colour_labels(TRUTH)
    assert not coloured[TRUTH == 0].any() and coloured[TRUTH > 0].any(axis=1).all()
    table = colour_labels(np.arange(200)[None])[0].astype(int)
    assert np.array_equal(colour_labels(np.array([[7]]))[0, 0], table[7])
    assert np.abs(np.diff(table[1:], axis=0)).sum(axis=1).min() > 60
    assert len({tuple(colour) for colour in table}) > 190
    assert np.array_equal(colour_labels(np.zeros((2, 3), np.uint8)), np.zeros((2, 3, 3)))


def test_side_by_side_and_thumbnail():
    joined = side_by_side([np.zeros((4, 3, 3), np.uint8), np.zeros((6, 2, 3), np.uint8)], gap=1)
    assert joined.shape == (6, 6, 3)
    assert (joined[4:, :3] == 255).all() and (joined[:, 3] == 255).all() and not joined[:, 4:].any()
    assert thumbnail(to_rgb8(IMAGE), 100).shape == (100, 100, 3)
    assert thumbnail(np.zeros((3, 3000, 3), np.uint8), 100).shape == (1, 100, 3)
    assert np.array_equal(thumbnail(IMAGE, 512), IMAGE)
