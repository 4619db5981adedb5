"""Two runs compared."""

import shutil

import pytest
from page_dom import Dom

from components.evaluate.component import Evaluate
from pipelines.reporting.compare import compare, contents, differences, plots, results
from pipelines.run_folder.record import RunRecord, TaskRecord

DICE = Evaluate.headlines["dice"]


@pytest.fixture
def pair(finished) -> tuple[RunRecord, RunRecord]:
    """Two records of the same run, to be changed."""
    return finished[1].model_copy(deep=True), finished[1].model_copy(deep=True)


def test_settings_that_differ(pair):
    a, b = pair
    assert differences(a, b) == []
    b.tasks["pretrain"].parameters = {"steps": 7}
    b.tasks["extra"] = TaskRecord()
    b.pipeline = "other"
    assert differences(a, b) == [
        ["pipeline", "label-free", "other"], ["pretrain.steps", "", "7"], ["extra", "absent", "present"]
    ]  # fmt: skip


def test_parameters_that_the_graph_feeds_are_no_settings(pair):
    for record, value in zip(pair, (0.5, 0.6), strict=True):
        record.tasks["em-1/train-segmentor"].parameters = {"agreement": value, "skip": value > 0.5}
        record.tasks["em-1/train-segmentor"].fed = ["agreement", "skip"]
    assert differences(*pair) == []
    pair[0].tasks["em-1/train-segmentor"].fed = pair[1].tasks["em-1/train-segmentor"].fed = ["skip"]
    assert differences(*pair) == [["em-1/train-segmentor.agreement", "0.5", "0.6"]]


def test_what_was_set_alike_in_all_repetitions_is_one_row(pair):
    a, b = pair
    a.parameters, b.parameters = {"seed": 1}, {"seed": 2}
    for number in (0, 1):
        for made, k in ((a, 12), (b, 16)):
            made.tasks[f"em-{number}/cluster"].parameters = {"k": k, "seed": made.parameters["seed"]}
            made.tasks[f"em-{number}/train-segmentor"].parameters = {"steps": k * number}
    assert differences(a, b) == [
        ["seed", "1", "2"], ["em-*/cluster.k", "12", "16"], ["em-1/train-segmentor.steps", "12", "16"]
    ]  # fmt: skip


def test_headline_metrics_are_compared(pair):
    a, b = pair
    b.tasks["em-1/evaluate"].metrics = {"dice": 0.5}
    rows = {(task, metric): values for task, metric, *values in results(a, b)}
    assert rows["em-1/evaluate", DICE] == [0.75, 0.5, -0.25]
    assert ("em-1/evaluate", Evaluate.headlines["f1"]) not in rows
    assert rows["em", "selected"] == ["em-1", "em-1", ""]
    assert rows["all", "seconds"] == [52, 52, 0]


def test_lines_of_both_runs_over_the_repetitions(pair):
    a, b = pair
    del b.tasks["em-1/refine-masks"].metrics["agreement"]
    assert plots(a, b)[f"em: {DICE}"] == {"A": [(0, 0.5), (1, 0.75)], "B": [(0, 0.5), (1, 0.75)]}
    assert "em: agreement" not in plots(a, b) and "em: agreement" in plots(a, a)


def test_contents_are_compared_by_digest(pair):
    a, b = pair
    b.tasks["infer"].outputs["predictions"].digest = "another"
    rows = {row[0]: row[-1] for row in contents(a, b)}
    assert rows["infer/predictions"] == "differ" and rows["ingest/images"] == "equal"
    assert "ingest/report" not in rows


def test_the_page_shows_the_same_images_of_both(finished, tmp_path):
    run, record = finished
    other = tmp_path / "other"
    shutil.copytree(run, other)
    changed = record.model_copy(deep=True)
    changed.tasks["score"] = TaskRecord(stage="evaluate", state="done", metrics={"dice": 1}, remark="Too <high>.")
    changed.save(other)
    dom = Dom(compare("x <run>", run, "y", other).html())
    assert dom.images() == 4 and [caption[:3] for caption in dom.captions] == ["A: ", "B: "] * 2
    assert dom.values("href")[:2] == ["/runs/x%20%3Crun%3E/", "/runs/y/"] and "B, score: Too <high>." in dom.text
    assert dom.table("where") == [["score", "absent", "present"]]


def test_runs_without_results_have_a_page_too(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        RunRecord(pipeline="x").save(tmp_path / name)
    dom = Dom(compare("a", tmp_path / "a", "b", tmp_path / "b").html())
    assert dom.images() == 0 and dom.table("task")[0][:2] == ["all", "seconds"]
