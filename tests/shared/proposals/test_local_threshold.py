"""Local thresholds: objects of any brightness at half their own height; the estimate of their radius."""

import numpy as np
import pytest
from skimage.filters import gaussian

from shared.imaging.filters import count_transitions, window_sigma
from shared.proposals.local_threshold import local_probability


def test_every_object_is_thresholded_at_half_its_own_height():
    """One level that finds the dim ones of blurred discs makes the bright ones too large."""
    y, x = np.indices((160, 160))
    plane = np.zeros((160, 160), np.float32)
    centres = {(40, 40): 1.0, (40, 120): 0.3, (120, 40): 0.3, (120, 120): 1.0}
    for (cy, cx), height in centres.items():
        plane += height * (np.hypot(y - cy, x - cx) <= 12)
    plane = gaussian(plane, 3).astype(np.float32)
    level, area = 0.1, np.pi * 12**2
    found = local_probability(plane, level, 0.5) >= 0.5
    for (cy, cx), height in centres.items():
        near = np.hypot(y - cy, x - cx) < 35
        assert abs((found & near).sum() / area - 1) < 0.08
        if height == 1:
            assert ((plane > level) & near).sum() / area > 1.4


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_plane_of_one_value_stays_undecided(value):
    assert (local_probability(np.full((20, 30), value, np.float32), 0.5, 0.5) < 0.5).all()


@pytest.mark.parametrize("radius", [6, 15, 30])
def test_the_window_is_a_share_of_the_radius(radius):
    y, x = np.indices((160, 160))
    disc = np.hypot(y - 80, x - 80) <= radius
    assert window_sigma(int(disc.sum()), count_transitions(disc)) == pytest.approx(0.7 * radius, rel=0.1)
    assert window_sigma(10, 1000) == 2 and window_sigma(100_000, 10) == 24
