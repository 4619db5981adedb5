"""The drawing of a run's graph."""

import itertools
import re
from xml.etree import ElementTree

import pytest
from finished_run import ORDER

from pipelines.reporting.graph_drawing import appearance, arrows, drawing, rows_of
from pipelines.run_folder.record import TaskRecord


def svg(record) -> ElementTree.Element:
    return ElementTree.fromstring(re.search(r"<svg.*</svg>", drawing(record), re.DOTALL)[0])


def test_the_drawing_shows_every_task_inside_its_frame(finished):
    _, record = finished
    tree = svg(record)
    assert len(tree.findall("g")) == len(record.tasks)
    width, height = float(tree.get("width")), float(tree.get("height"))
    for box in tree.iter("rect"):
        assert float(box.get("x")) >= 0 and float(box.get("x")) + float(box.get("width")) <= width
        assert float(box.get("y")) >= 0 and float(box.get("y")) + float(box.get("height")) <= height


def test_arrows_show_the_order_without_those_that_follow_from_others(finished):
    _, record = finished
    chain = ["ingest", "pretrain", *(f"em-{i}/{n}" for i in (0, 1) for n in ORDER[:4]), "infer"]
    evaluated = {(f"em-{i}/train-segmentor", f"em-{i}/evaluate") for i in (0, 1)}
    assert set(arrows(record)) == {*itertools.pairwise(chain), *evaluated}
    assert [group for group, _ in rows_of(record)] == ["", "em-0", "em-1", ""]


def test_boxes_do_not_overlap(finished):
    boxes = [group.find("rect") for group in svg(finished[1]).findall("g")]
    places = [tuple(float(box.get(name)) for name in ("x", "y", "width", "height")) for box in boxes]
    for i, (ax, ay, width, height) in enumerate(places):
        for bx, by, *_ in places[:i]:
            assert abs(ax - bx) >= width or abs(ay - by) >= height


@pytest.mark.parametrize(
    "task, expected",
    [
        (TaskRecord(state="done", origin="computed"), "computed"),
        (TaskRecord(state="done", origin="cache"), "cached"),
        (TaskRecord(state="done", origin="cache", skipped="the loop is over"), "skipped"),
        (TaskRecord(state="stopped"), "waiting"),
        (TaskRecord(state="failed"), "failed"),
    ],
)
def test_how_a_task_appears(task, expected):
    assert appearance(task) == expected
