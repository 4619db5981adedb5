"""Grey planes: one channel, the mean, and the stain."""

import numpy as np
import pytest

from shared.imaging.grey import NORMALISATION, grey, is_stained, stain

COLOUR = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_a_channel_is_normalised_alone(channel):
    assert np.array_equal(grey(COLOUR, channel), NORMALISATION(COLOUR)[..., channel])


@pytest.mark.parametrize("channel", ["mean", "stain", 1])
def test_what_an_image_lacks_is_replaced_by_the_mean(channel):
    one = COLOUR[..., :1]
    assert np.array_equal(grey(one, channel), NORMALISATION(one)[..., 0])
    assert np.array_equal(grey(COLOUR), NORMALISATION(COLOUR).mean(axis=2))
    assert np.array_equal(grey(COLOUR, "stain"), stain(COLOUR))


def test_the_stain_is_the_optical_density_along_its_main_axis():
    """Two stains in any amounts: the plane rises with the amount of the stain that varies most."""
    rng = np.random.default_rng(0)
    amount = rng.gamma(2.0, 0.3, (64, 64, 1)) + 0.2 * rng.random((64, 64, 1))
    image = np.exp(-amount * np.array([0.65, 0.70, 0.29])).astype(np.float32)
    assert is_stained(image) and not is_stained(1 - image) and not is_stained(image[..., :1])
    plane = stain(image)
    order = np.argsort(amount.ravel())
    assert np.corrcoef(np.arange(order.size), np.argsort(np.argsort(plane.ravel()))[order])[0, 1] > 0.99
