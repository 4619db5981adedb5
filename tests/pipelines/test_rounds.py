"""What a run's record tells about its rounds."""

import pytest

from pipelines.record import RunRecord, TaskRecord
from pipelines.rounds import handed_on, round_table, rounds


def run_of(*best: int) -> RunRecord:
    """A finished run whose gates said these numbers, one a round."""
    tasks = {}
    for number, chosen in enumerate(best):
        scores = {"dice": 0.5 + number / 10, "f1": 0.25}
        tasks[f"em-{number}/train-segmentor"] = TaskRecord(stage="train_segmentor", state="done")
        tasks[f"em-{number}/gate"] = TaskRecord(stage="gate", state="done", values={"best_round": chosen})
        tasks[f"em-{number}/evaluate"] = TaskRecord(stage="evaluate", state="done", metrics=scores)
    return RunRecord(**MINIMAL, tasks=tasks)


MINIMAL = {name: "" for name, field in RunRecord.model_fields.items() if field.is_required() and name != "tasks"}


@pytest.mark.parametrize("best, name", [((0, 1, 2), "em-2"), ((0, 1, 1), "em-1"), ((-1, -1), None), ((), None)])
def test_the_round_that_the_last_gate_kept_is_handed_on(best, name):
    assert handed_on(run_of(*best)) == name


def test_the_table_tells_which_round_is_handed_on():
    lines = round_table(run_of(0, 1, 1)).splitlines()
    marked = [line for line in lines if "handed on" in line]
    assert len(marked) == 1 and marked[0].startswith("em-1") and "0.600" in marked[0]
    assert len(rounds(run_of(0, 1, 1))) == 3
