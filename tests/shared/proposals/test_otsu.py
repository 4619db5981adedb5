"""Otsu's threshold against scikit-image's."""

import numpy as np
import pytest
from real_labels import wheel_nuclei
from skimage.filters import threshold_otsu

from shared.proposals.otsu import NORMAL_SEPARABILITY, otsu


def test_the_threshold_is_that_of_scikit_image():
    image, _ = wheel_nuclei()
    values = np.minimum(image.astype(np.float32), np.percentile(image, 99))
    found = otsu(values)
    assert found.threshold == pytest.approx(threshold_otsu(values), rel=0.02)
    high, low = values[values >= found.threshold].mean(), values[values < found.threshold].mean()
    assert found.mean_difference == pytest.approx(high - low, rel=0.02)


def test_separability_of_a_normal_distribution_and_of_one_value():
    normal = np.random.default_rng(0).normal(size=200_000)
    assert otsu(normal).separability == pytest.approx(NORMAL_SEPARABILITY, abs=0.01)
    assert otsu(np.full(10, 3.0)).separability == 0 and otsu(np.empty(0)).separability == 0
