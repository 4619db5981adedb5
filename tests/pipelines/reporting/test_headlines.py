"""Metrics that reports show: those of the declarations."""

import pytest

from components.evaluate.component import Evaluate
from components.registry import declaration, names
from pipelines.reporting.headlines import columns, curves, headlines, numbers, points, remarks
from pipelines.reporting.repetitions import final_artifacts, loops
from pipelines.reporting.terminal_summary import terminal_summary
from pipelines.run_folder.record import InputRecord, OutputRecord, RunRecord, TaskRecord

TITLES = [Evaluate.headlines[metric] for metric in ("dice", "f1")]
PASSED = ["15.0", "passed", "through"]


@pytest.mark.parametrize("stage", ["unheard_of", "..", ""])
def test_a_task_of_an_unknown_stage_has_no_headline(stage):
    tasks = {"task": TaskRecord(stage=stage, metrics={"dice": 1.0}), "em-0/task": TaskRecord(stage=stage)}
    record = RunRecord(pipeline="x", tasks=tasks)
    assert headlines(record) == [] == columns(loops(record)[0])


def test_headlines_are_those_of_the_tasks_outside_of_loops(finished):
    _, record = finished
    found = [(one.task, one.label, one.value) for one in headlines(record)]
    assert found == [("infer", "images", 2), ("infer", "cells found", 12)]
    more = record.model_copy(deep=True)
    more.tasks["score"] = TaskRecord(stage="evaluate", state="done", metrics={"dice": 0.5, "f1": 0.25, "iou": 0.3})
    assert [(one.label, one.value) for one in headlines(more)[:2]] == list(zip(TITLES, (0.5, 0.25), strict=True))
    more.tasks["score"].skipped = "no labels"
    assert len(headlines(more)) == 2


def test_columns_of_later_tasks_are_first_and_curves_in_order(finished):
    (loop,) = loops(finished[1])
    assert [(column.task, column.metric) for column in columns(loop)] == [
        ("evaluate", "dice"), ("evaluate", "f1"), ("refine-masks", "agreement"),
    ]  # fmt: skip
    assert columns(loop)[0].values == [0.5, 0.75] and columns(loop)[2].values == [None, 0.75]
    assert curves(loop) == [], "a metric that no repetition has is left out"
    record = finished[1].model_copy(deep=True)
    for name in ("cluster", "refine-masks"):
        record.tasks[f"em-0/{name}"].metrics["foreground_share"] = 0.2
    assert [(curve.task, curve.metric) for curve in curves(loops(record)[0])] == [
        (name, "foreground_share") for name in ("cluster", "refine-masks")
    ]
    assert points(columns(loop)[2].values) == [(1, 0.75)]


@pytest.mark.parametrize("name", names())
def test_every_stage_names_its_headlines(name):
    """Labels are short, for a table and a legend, and no two of a stage are equal."""
    stage = declaration(name)
    for labels in (stage.headlines, stage.curves):
        assert all(label.strip() and len(label) <= 40 for label in labels.values())
        assert len(set(labels.values())) == len(labels)


@pytest.mark.parametrize(
    "values, shown",
    [
        ([0.5, None], ["0.500", "–"]),
        ([1.0, 0.25], ["1.000", "0.250"]),
        ([12345.0], ["12,345"]),
        ([0.0], ["0"]),
        ([None], ["–"]),
    ],
)
def test_numbers_of_a_column(values, shown):
    assert numbers(values) == shown


# --- in the terminal ----------------------------------------------------------------------------------------------


def test_the_table_of_a_loop(finished):
    _, record = finished
    lines = terminal_summary(record).splitlines()
    starts = [lines[0].index(title) for title in ("round", *TITLES, "agreement", "seconds")]
    assert starts == sorted(starts)
    assert lines[2].split() == ["em-0", "0.500", "0.400", "–", "15.0"]
    assert lines[3].split() == ["em-1", "0.750", "0.600", "0.750", "15.0", "selected"]


def test_a_repetition_that_passed_through_says_so_and_shows_no_metric_of_a_skipped_task(finished):
    record = finished[1].model_copy(deep=True)
    for name in ("refine-masks", "train-segmentor"):
        record.tasks[f"em-1/{name}"].parameters["skip"] = True
        record.tasks[f"em-1/{name}"].skipped = "the loop is over"
    assert terminal_summary(record).splitlines()[3].split() == ["em-1", "0.750", "0.600", *PASSED]


def test_repetitions_that_were_not_started_are_left_out(finished):
    record = finished[1].model_copy(deep=True)
    for name in list(record.tasks):
        if name.startswith("em-1"):
            record.tasks[name] = TaskRecord(stage=record.tasks[name].stage)
    assert not any(line.startswith("em-1") for line in terminal_summary(record).splitlines())


def test_what_the_loop_started_from_is_named_where_it_is_selected(finished):
    record = finished[1].model_copy(deep=True)
    record.tasks["pretrain"].outputs["encoder"] = OutputRecord(path="", kind="Model", digest="given")
    record.tasks["em-1/train-segmentor"].outputs["segmentor"].digest = "given"
    record.tasks["infer"].inputs["segmentor"] = InputRecord(task="em-1/train-segmentor", output="segmentor")
    lines = terminal_summary(record).splitlines()
    assert not any(line.endswith("selected") for line in lines) and "pretrain/encoder" in lines[4]


def test_remarks_are_those_of_the_last_computed_repetition_and_of_the_tasks_outside(finished):
    record = finished[1].model_copy(deep=True)
    for name, task in record.tasks.items():
        task.remark = "" if name == "pretrain" else f"remark of {name}"
    told = [name for name, _ in remarks(record)]
    assert told == ["ingest", *(name for name in record.tasks if name.startswith("em-1")), "infer"]
    lines = terminal_summary(record).splitlines()
    assert [line for line in lines if ": remark of" in line] == [f"{name}: remark of {name}" for name in told]
    assert all(artifact in lines[-1] for artifact in final_artifacts(record))
    for name in ("refine-masks", "train-segmentor"):
        record.tasks[f"em-1/{name}"].parameters["skip"] = True
    assert "em-0/cluster" in dict(remarks(record)) and "em-1/cluster" not in dict(remarks(record))


def test_headlines_of_the_tasks_outside_of_loops_are_a_line_each(finished):
    record = finished[1].model_copy(deep=True)
    record.tasks["score"] = TaskRecord(stage="evaluate", state="done", metrics={"dice": 0.5, "f1": 0.25})
    lines = terminal_summary(record).splitlines()
    assert "infer: images 2; cells found 12" in lines and f"score: {TITLES[0]} 0.500; {TITLES[1]} 0.250" in lines


def test_a_task_that_was_skipped_says_why(finished):
    record = finished[1].model_copy(deep=True)
    record.tasks["train"] = TaskRecord(stage="train_classifier", state="done", skipped="no image has a class")
    record.tasks["em-0/cluster"].skipped = "the loop is over"
    told = dict(remarks(record))
    assert told["train"] == "skipped: no image has a class" and "em-0/cluster" not in told


def test_a_run_with_nothing_to_tell():
    assert terminal_summary(RunRecord(pipeline="x")) == ""
