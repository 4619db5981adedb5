"""What a run's record tells about its rounds."""

import re

import pytest

from pipelines.reporting.rounds import (
    SCORED_ON_TRAINING_LABELS,
    START,
    averaged,
    ending,
    final_scores,
    handed_on,
    round_table,
    rounds,
    scored_on_training_labels,
    shipped,
)
from pipelines.run_folder.record import Output, RunRecord, TaskRecord


def run_of(*best: int) -> RunRecord:
    """A finished run whose gates said these numbers, one a round."""
    tasks = {}
    for number, chosen in enumerate(best):
        scores = {"dice": 0.5 + number / 10, "f1": 0.25}
        tasks[f"em-{number}/train-segmentor"] = TaskRecord(stage="train_segmentor", state="done")
        tasks[f"em-{number}/select-model"] = TaskRecord(
            stage="select_model", state="done", values={"best_round": chosen}
        )
        tasks[f"em-{number}/evaluate"] = TaskRecord(stage="evaluate", state="done", metrics=scores)
    return RunRecord(**MINIMAL, tasks=tasks)


MINIMAL = {name: "" for name, field in RunRecord.model_fields.items() if field.is_required() and name != "tasks"}


@pytest.mark.parametrize("best, name", [((0, 1, 2), "em-2"), ((0, 1, 1), "em-1"), ((-1, -1), START), ((), None)])
def test_the_round_that_the_last_gate_kept_is_handed_on(best, name):
    assert handed_on(run_of(*best)) == name


def test_the_table_tells_which_round_is_handed_on():
    lines = round_table(run_of(0, 1, 1)).splitlines()
    marked = [line for line in lines if "handed on" in line]
    assert len(marked) == 1 and marked[0].startswith("em-1") and "0.600" in marked[0]
    assert len(rounds(run_of(0, 1, 1))) == 3


def test_a_start_that_no_round_beat_is_handed_on_and_it_is_said():
    """Also where the loop did not end for it: the last round asked for, or masks that no longer change."""
    record = run_of(-1)
    for values in ({}, {"done": True, "ending": "converged"}):
        record.tasks["em-0/select-model"].values |= values
        assert ending(record).endswith(" Handed on: the model the loop started from.")
        lines = round_table(record).splitlines()
        assert "handed on" not in lines[2] and lines[-1] == ending(record)
    assert "Handed on:" not in ending(run_of(0))


def test_a_round_that_was_handed_on_though_it_is_worse():
    record = run_of(0, 1)
    gate = record.tasks["em-1/select-model"]
    gate.metrics["accepted"] = 0.0
    assert "though not better" not in round_table(record)
    gate.parameters["keep_worse"] = True
    assert round_table(record).splitlines()[3].endswith("handed on, though not better")


def test_scores_that_flatter_are_called_so():
    record = run_of(0, 1)
    assert not scored_on_training_labels(record) and "scored_on_training_labels" not in round_table(record)
    record.tasks["em-0/evaluate"].metrics["scored_on_training_labels"] = 1.0
    assert (
        scored_on_training_labels(record)
        and f"Dice and F1 are {SCORED_ON_TRAINING_LABELS}." in round_table(record).splitlines()
    )


def test_whether_what_is_handed_on_is_an_average():
    record = run_of(0, 1, 1)
    record.tasks["em-1/select-model"].metrics["averaged"] = 1.0
    record.tasks["em-0/select-model"].metrics["averaged"] = 0.0
    assert averaged(record, "em-1") and not averaged(record, "em-0")
    assert not averaged(record, "em-2") and not averaged(record, None)


def test_the_scores_are_those_of_what_was_handed_on_where_it_was_scored():
    record = run_of(0, 1, 1)
    assert final_scores(record)["dice"] == pytest.approx(0.7)
    record.tasks["evaluate"] = TaskRecord(stage="evaluate", state="done", metrics={"dice": 0.6})
    assert final_scores(record) == {"dice": 0.6}
    assert final_scores(run_of()) == {}


@pytest.mark.parametrize(
    "metrics, said",
    [
        (
            {"accepted": 1, "onnx_f1": 0.9994},
            r"compared with the weights \(cells agree with F1 0.999\): export-model/exp",
        ),
        ({"accepted": 1}, "features agree"),
        ({"accepted": 0, "onnx_f1": 0.5}, "Not every exported form"),
    ],
)
def test_what_became_of_the_exported_model(metrics, said):
    record = run_of(0, 1)
    assert shipped(record) == ""
    made = Output(path="export-model/exported", kind="Model", digest="")
    record.tasks["export-model"] = TaskRecord(
        stage="export_model", state="done", metrics=metrics, outputs={"exported": made}
    )
    assert re.search(said, shipped(record))


@pytest.mark.parametrize(
    "best, why, said",
    [
        ((0, 1, 2), "", "em-2, the last one asked for"),
        ((0, 1, 2), "converged", "nearly those of the round before: agreement 0.980"),
        ((0, 0, 0), "no better", "no round was better than em-0"),
        ((-1, -1), "no better", "no round was better than the model it started from"),
        ((0, 0), "drift", "so much more or less than before"),
    ],
)
def test_why_the_loop_ended(best, why, said):
    record = run_of(*best)
    gate = record.tasks[f"em-{len(best) - 1}/select-model"]
    gate.values |= {"done": bool(why), "ending": why}
    last = f"em-{len(best) - 1}/refine-masks"
    record.tasks[last] = TaskRecord(stage="refine_masks", state="done", values={"agreement": 0.98})
    assert said in ending(record)
    assert ending(record) in round_table(record)


def test_a_run_whose_gates_did_not_say_why_has_ended_all_the_same():
    record = run_of(0, 0)
    record.tasks["em-1/select-model"].values["done"] = True
    assert ending(record) == "The loop ended with em-1."


def test_a_loop_that_goes_on_has_no_ending():
    record = run_of(0, 1)
    record.tasks["em-1/select-model"].state = "running"
    assert ending(record) == "" == ending(run_of())
    assert "ended" not in round_table(record)
