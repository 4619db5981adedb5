"""The history of a training in numbers."""

from itertools import pairwise

import pytest

from shared.training.history import PLOT_POINTS, first_and_last_loss, plot_points


def test_first_and_last_tenth() -> None:
    history = [(step, float(40 - step)) for step in range(40)]
    assert first_and_last_loss(history) == {"first_loss": pytest.approx(38.5), "loss": pytest.approx(2.5)}
    assert first_and_last_loss([(0, 3.0)]) == {"first_loss": 3.0, "loss": 3.0}


def test_a_plot_has_about_so_many_points() -> None:
    assert plot_points([(0, 1.0)]) == [(0, 1.0)]
    for length in (299, 300, 1000, 12345):
        points = plot_points([(step, 0.0) for step in range(length)])
        assert min(length, PLOT_POINTS) <= len(points) < 2 * PLOT_POINTS
        assert len({b[0] - a[0] for a, b in pairwise(points)}) == 1
