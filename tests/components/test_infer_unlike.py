"""Images whose instances are unlike the others': each reason, and the order of the list."""

import csv

import numpy as np
import pytest

from components.infer.failures import write_reasons
from components.infer.unlike import UNLIKE_FILE, InstanceStatistics, mean_estimate, unlike
from shared.exporters.exporter import Instances

TYPICAL = {
    "cells": 50,
    "density": 5e-4,
    "typical_area": 300.0,
    "coverage": 0.15,
    "estimated_dice": 0.8,
    "straight": 0.0,
}


def images(**odd) -> list[InstanceStatistics]:
    """Six like images, and one that differs."""
    return [InstanceStatistics(f"{i}.png", **TYPICAL) for i in range(6)] + [
        InstanceStatistics("odd.png", **(TYPICAL | odd))
    ]


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"estimated_dice": 0.2}, "do not look like cells (estimated Dice 0.20)"),
        ({"coverage": 0.97}, "cells cover 97 % of the image"),
        ({"straight": 0.2}, "20 % of the borders are straight"),
        ({"typical_area": 3000.0}, "10 times as large as in the typical image"),
        ({"cells": 0, "density": 0.0, "typical_area": 0.0, "estimated_dice": None}, "no cells"),
        ({"cells": 2, "density": 2e-5}, "2 cells, where the typical image has 50 on the same area"),
    ],
)
def test_each_reason(odd, reason):
    ((source, found),) = unlike(images(**odd))
    assert source == "odd.png" and reason in found


def test_like_images_are_not_listed_and_few_images_have_no_typical_one():
    assert unlike(images()) == []
    few = images(typical_area=3000.0)[-3:]
    assert unlike(few) == [] and unlike([]) == []


def test_a_set_of_two_magnifications_has_no_large_cells():
    large = [InstanceStatistics(f"l{i}.png", **(TYPICAL | {"typical_area": 2100.0})) for i in range(3)]
    assert unlike([*images()[:6], *large]) == []
    body = InstanceStatistics("body.png", **(TYPICAL | {"typical_area": 9000.0}))
    assert [source for source, _ in unlike([*images()[:6], *large, body])] == ["body.png"]


def test_the_least_trusted_come_first(tmp_path):
    found = unlike(
        [*images(estimated_dice=0.3), InstanceStatistics("worse.png", **(TYPICAL | {"estimated_dice": 0.1}))]
    )
    assert [source for source, _ in found] == ["worse.png", "odd.png"]
    write_reasons(tmp_path / UNLIKE_FILE, found)
    with (tmp_path / "unlike.csv").open(newline="") as stream:
        assert [row["source"] for row in csv.DictReader(stream)] == ["worse.png", "odd.png"]
    write_reasons(tmp_path / "none.csv", [])
    assert not (tmp_path / "none.csv").exists()


def test_statistics_of_instances():
    labels = np.zeros((100, 200), np.uint16)
    labels[10:20, 10:30], labels[50:60, 50:60] = 1, 2
    found = InstanceStatistics.of("a.png", Instances(labels > 0, labels, np.ones(2), 0.6))
    assert (found.cells, found.density, found.typical_area) == (2, 1e-4, 200.0)
    assert found.coverage == 0.015 and found.straight > 0.2 and mean_estimate([found]) == 0.6
    empty = InstanceStatistics.of("b.png", Instances(labels > 9, 0 * labels, np.ones(0)))
    assert (empty.cells, empty.density, empty.typical_area, empty.straight) == (0, 0.0, 0.0, 0.0)
    assert mean_estimate([empty]) is None
