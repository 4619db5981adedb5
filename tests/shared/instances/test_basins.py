"""Merging of basins over shallow saddles."""

import numpy as np

from shared.instances.basins import merge_basins


def test_basins_merge_from_the_highest_saddle_down():
    """Basin 2 joins 1 first; then 3 is compared with the peak of both."""
    distance = np.array([[10, 9, 8, 7, 7, 7, 8]], np.float32)
    parts = np.array([[1, 1, 2, 2, 3, 3, 3]], np.int32)
    assert merge_basins(parts, distance, 0.85).tolist() == [0, 1, 1, 1]
    assert merge_basins(parts, distance, 0.95).tolist() == [0, 1, 1, 2]
    assert merge_basins(parts, distance, 1.0).tolist() == [0, 1, 2, 3]
