"""Every value survives the conversion to a dtype that an ImageSet stores."""

import numpy as np
import pytest
from image_files import random

from shared.readers.decode.pixel_values import to_storable
from shared.system.errors import ImageError


@pytest.mark.parametrize(
    ("dtype", "low", "high", "becomes"),
    [
        (np.bool_, 0, 1, np.uint8),
        (np.int8, 0, 127, np.uint8),
        (np.int8, -5, 100, np.float32),
        (np.int16, 0, 3000, np.uint16),
        (np.int16, -300, 3000, np.float32),
        (np.int32, 0, 65_535, np.uint16),
        (np.uint32, 0, 65_536, np.float32),
        (np.uint32, 0, 2**24 + 1, np.float64),
        (np.int64, -(2**40), 7, np.float64),
        (np.float16, -1, 3, np.float32),
        (np.float64, 0.5, 3, np.float32),
        (np.float64, 0.1, 3, np.float64),
    ],
)
def test_values_survive_every_conversion(dtype, low, high, becomes):
    image = np.array([[[low], [high]]]).astype(dtype)
    stored = to_storable(image)
    assert stored.dtype == becomes
    assert np.array_equal(stored.astype(np.float64), image.astype(np.float64))


@pytest.mark.parametrize("dtype", [np.uint64, np.int64])
def test_integers_beyond_a_double_are_refused(dtype):
    with pytest.raises(ImageError, match="do not fit"):
        to_storable(np.array([[[1], [2**53 + 1]]], dtype))


def test_one_constant_channel_is_accepted():
    image = np.dstack([random(20, 20), np.zeros((20, 20), np.uint8)])
    assert np.array_equal(to_storable(image), image)
