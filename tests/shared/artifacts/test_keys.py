"""Which keys stand for many."""

import numpy as np
import pytest

from shared.artifacts.keys import evenly_spaced


@pytest.mark.parametrize("count", [1, 2, 7, 50, 199])
@pytest.mark.parametrize("most", [1, 2, 3, 16, 64])
def test_keys_are_spread_as_numpys_linspace(count, most):
    keys = [f"image{i:03}" for i in range(count)]
    expected = {keys[int(i)] for i in np.linspace(0, count - 1, most).round()}
    assert evenly_spaced(keys, most) == sorted(expected)
