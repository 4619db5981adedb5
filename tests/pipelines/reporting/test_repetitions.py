"""Loops of a run: their repetitions, and which of them was selected."""

import pytest

from pipelines.reporting.repetitions import (
    any_repetition,
    final_artifacts,
    loops,
    origins,
    outside,
    selected,
    started_from,
)
from pipelines.run_folder.record import InputRecord, OutputRecord, RunRecord, TaskRecord

NAMES = ("em", "fold", "outer-2/inner", "weird <name>")


def run_of(*best: str, name: str = "em", start: str = "start") -> RunRecord:
    """A finished loop whose repetitions had these best models, by content; a candidate's content is its number."""
    tasks = {"first": task_with("made", start)}
    before = InputRecord(task="first", output="made", digest=start)
    for number, digest in enumerate(best):
        group = f"{name}-{number}"
        tasks[f"{group}/train"] = task_with("candidate", str(number))
        tasks[f"{group}/select"] = task_with("best", digest)
        tasks[f"{group}/select"].inputs["incumbent"] = before
        before = InputRecord(task=f"{group}/select", output="best", digest=digest)
    tasks["use"] = TaskRecord(state="done", inputs={"model": before})
    tasks["again"] = TaskRecord(state="done", inputs={"model": before})
    return RunRecord(pipeline="x", tasks=tasks)


def task_with(output: str, digest: str) -> TaskRecord:
    return TaskRecord(state="done", outputs={output: OutputRecord(path="", kind="Model", digest=digest)})


@pytest.mark.parametrize("name", NAMES)
def test_repetitions_are_found_by_their_names(name):
    record = run_of("0", "1", name=name)
    (loop,) = loops(record)
    assert loop.name == name and [each.name for each in loop.repetitions] == [f"{name}-0", f"{name}-1"]
    assert loop.task_names() == ["train", "select"]
    assert f"{name}-1/train" in loop and "use" not in loop and f"{name}-10/train" not in loop
    assert list(outside(record)) == ["first", "use", "again"]


def test_groups_that_are_not_repeated_are_no_loop():
    tasks = {name: TaskRecord() for name in ("em-2/cluster", "stage/cluster", "cluster-0", "cluster")}
    record = RunRecord(pipeline="x", tasks=tasks)
    assert loops(record) == [] and list(outside(record)) == list(tasks)


def test_repetitions_are_in_the_order_of_their_numbers():
    record = RunRecord(pipeline="x", tasks={f"em-{i}/a": TaskRecord() for i in (0, 10, 9, 1)})
    assert [each.name for each in loops(record)[0].repetitions] == ["em-0", "em-1", "em-9", "em-10"]


def test_two_loops_of_one_run():
    tasks = run_of("0", "1").tasks | run_of("a", name="tune", start="other").tasks
    record = RunRecord(pipeline="x", tasks=tasks)
    assert [loop.name for loop in loops(record)] == ["em", "tune"]


@pytest.mark.parametrize(
    "best, chosen, start",
    [
        (("0", "1", "2"), ["em-2"], []),
        (("0", "1", "1"), ["em-1"], []),
        (("0", "0", "0"), ["em-0"], []),
        (("0", "average", "average"), ["em-1"], []),  # made by the selection itself
        (("start", "start"), [], ["first/made"]),
    ],
)
def test_the_selected_repetition_is_the_origin_of_what_other_tasks_use(best, chosen, start):
    record = run_of(*best)
    (loop,) = loops(record)
    assert selected(record, loop) == chosen and started_from(record, loop) == start
    assert len(origins(record, loop)) == 1


def test_a_loop_that_has_not_ended_has_selected_nothing():
    record = run_of("0", "1", "2")
    record.tasks["em-2/select"] = TaskRecord(state="running")
    for name in ("use", "again"):
        record.tasks[name].inputs["model"].digest = ""
    (loop,) = loops(record)
    assert selected(record, loop) == started_from(record, loop) == []


def test_the_selection_is_known_before_the_tasks_after_it_have_started():
    record = run_of("0", "0")
    for name in ("use", "again"):
        record.tasks[name] = TaskRecord(inputs={"model": InputRecord(task="em-1/select", output="best")})
    assert selected(record, loops(record)[0]) == ["em-0"]


def test_a_repetition_whose_tasks_were_told_to_skip_passed_through():
    record = run_of("0", "1", "1")
    for name in ("train", "select"):
        record.tasks[f"em-2/{name}"].parameters["skip"] = True
        record.tasks[f"em-1/{name}"].parameters["skip"] = False
    (loop,) = loops(record)
    assert [each.passed_through for each in loop.repetitions] == [False, False, True]
    assert loop.last_computed().name == "em-1"


def test_a_repetition_that_was_not_started_is_not_the_last_computed_one():
    record = run_of("0", "1")
    record.tasks["em-1/train"] = record.tasks["em-1/select"] = TaskRecord()
    (loop,) = loops(record)
    assert loop.last_computed().name == "em-0"
    assert loops(RunRecord(pipeline="x", tasks={"em-0/a": TaskRecord()}))[0].last_computed() is None


def test_results_are_the_artifacts_that_no_other_task_takes():
    record = run_of("0")
    made = {"files": OutputRecord(path="use/files", kind="Files"), "report": OutputRecord(path="x", kind="system.HTML")}
    record.tasks["use"].outputs = made
    record.tasks["em-0/train"].outputs["log"] = OutputRecord(path="em-0/train/log", kind="Files")
    assert final_artifacts(record) == ["use/files"]
    record.tasks["source"] = TaskRecord(
        state="done", outputs={"x": OutputRecord(path="source/x", kind="LabelSet", digest="d")}
    )
    assert final_artifacts(record) == ["use/files"], "what is made of nothing is no result"
    for field, value in (("skipped", "no labels"), ("state", "failed")):
        again = record.model_copy(deep=True)
        setattr(again.tasks["use"], field, value)
        assert final_artifacts(again) == []


def test_the_star_for_any_repetition():
    assert any_repetition("em-12/cluster.k") == "em-*/cluster.k" and any_repetition("cluster-1.k") == "cluster-1.k"
