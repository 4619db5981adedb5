"""Resizing: size, identity and means."""

import numpy as np
import pytest

from shared.imaging.resize import mean_pool, resize, resize_into

IMAGE = np.random.default_rng(0).random((24, 36, 2)).astype(np.float32)


@pytest.mark.parametrize("size", [(12, 18), (48, 72), (23, 35)])
def test_any_size_keeps_the_mean(size):
    found = resize(IMAGE, size)
    assert found.shape == (*size, 2)
    np.testing.assert_allclose(found.mean(axis=(0, 1)), IMAGE.mean(axis=(0, 1)), atol=0.02)


def test_the_own_size_returns_the_image_itself():
    assert resize(IMAGE, (24, 36)) is IMAGE and mean_pool(IMAGE, 1) is IMAGE


def test_mean_pool_is_the_mean_of_each_square():
    found = mean_pool(IMAGE, 4)
    assert found.shape == (6, 9, 2)
    np.testing.assert_allclose(found[2, 3], IMAGE[8:12, 12:16].mean(axis=(0, 1)), rtol=1e-6)
    np.testing.assert_allclose(found, resize(IMAGE, (6, 9)), atol=1e-6)


def test_images_are_resized_by_one_factor_into_a_square_with_a_border_like_their_edge():
    image = np.full((10, 6, 2), 3, np.float32)
    image[1:-1, 1:-1] = 7
    found = resize_into(image, 8, 0.5)
    assert found.shape == (8, 8, 2) and found.dtype == np.float32
    assert (found[[0, -1]] == 3).all() and (found[:, [0, 1, -2, -1]] == 3).all()
    np.testing.assert_array_equal(found[1:6, 2:5], resize(image, (5, 3)))
    np.testing.assert_array_equal(resize_into(image, 5, 4.0)[:, 1:4], resize(image, (5, 3)), "too large for the factor")
    assert resize_into(np.ones((1, 100, 1), np.float32), 8, 0.1).shape == (8, 8, 1)
