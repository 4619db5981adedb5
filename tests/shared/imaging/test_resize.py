"""Images are resized as OpenCV resizes each channel."""

import cv2
import numpy as np
import pytest

from shared.imaging.resize import resize


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(("size", "interpolation"), [((24, 30), cv2.INTER_AREA), ((96, 70), cv2.INTER_LINEAR)])
def test_bilinear_up_and_area_averaged_down(size: tuple[int, int], interpolation: int, dtype: type) -> None:
    image = (np.random.default_rng(0).random((48, 60, 6)) * 200).astype(dtype)
    found = resize(image, size)
    assert found.shape == (*size, 6) and found.dtype == dtype
    for c in range(6):
        expected = cv2.resize(np.ascontiguousarray(image[..., c]), size[::-1], interpolation=interpolation)
        np.testing.assert_array_equal(found[..., c], expected)


def test_the_mean_is_kept() -> None:
    image = np.random.default_rng(0).random((48, 48, 3)).astype(np.float32)
    for side in (24, 48, 64):
        np.testing.assert_allclose(resize(image, (side, side)).mean(axis=(0, 1)), image.mean(axis=(0, 1)), atol=0.01)


def test_an_image_of_that_size_is_returned() -> None:
    image = np.zeros((5, 7, 1), np.uint8)
    assert resize(image, (5, 7)) is image
