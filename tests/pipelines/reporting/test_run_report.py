"""The page of a run."""

import shutil

import pytest
from page_dom import Dom

from components.evaluate.component import Evaluate
from pipelines.reporting import run_report
from pipelines.reporting.repetitions import loops
from pipelines.reporting.terminal_summary import loop_table, terminal_summary
from pipelines.run_folder.record import RunRecord, TaskRecord, load

DICE, F1 = Evaluate.headlines["dice"], Evaluate.headlines["f1"]


@pytest.fixture(scope="module")
def page(finished) -> str:
    path = run_report.write(finished[0])
    assert path == finished[0] / "report.html" and path.stat().st_size < 3_000_000
    return path.read_text()


def test_tables_hold_every_task_and_artifact(finished, page):
    _, record = finished
    dom = Dom(page)
    assert [row[0] for row in dom.table("task", "state")] == [*record.tasks, "all"]
    assert dom.table("task", "state")[0][1] == "from the run folder"
    assert float(dom.table("task", "state")[-1][2]) == sum(task.seconds for task in record.tasks.values())
    artifacts = {
        f"{name}/{key}": output.digest[:16]
        for name, task in record.tasks.items()
        for key, output in task.outputs.items()
        if output.kind != "system.HTML"
    }
    assert {row[0]: row[2] for row in dom.table("artifact")} == artifacts
    assert not dom.errors


def test_names_and_texts_of_a_run_are_escaped(page):
    dom = Dom(page)
    assert "small <run>" in dom.text and "<run>" not in page
    assert dom.table("source", "reason") == [["bad.tif", "no image, <text>"]]
    assert "python -m components ingest --source '/data'" in dom.text
    assert "ingest: One folder & labels." in dom.text


def test_the_table_of_a_loop_is_that_of_the_terminal(finished, page):
    (loop,) = loops(finished[1])
    _, rows = loop_table(finished[1], loop)
    assert Dom(page).table("round", DICE, F1) == rows
    assert rows[1] == ["em-1", "0.750", "0.600", "0.750", "15.0", "selected"]


def test_headlines_are_cards(finished, page, tmp_path):
    assert Dom(page).cards == {"images": "2", "cells found": "12", "tasks computed now": "12 of 13"}
    record = finished[1].model_copy(deep=True)
    record.tasks["score"] = TaskRecord(stage="evaluate", state="done", metrics={"dice": 0.9}, remark="Too <high>.")
    record.save(tmp_path)
    html = run_report.report(tmp_path).html()
    assert Dom(html).cards[DICE] == "0.900" and "score: Too <high>." in Dom(html).text
    assert "<div class='of'>score</div>" in html and "class='of'" not in page, "whose it is, where several have some"
    assert next(iter(Dom(html).cards)) == DICE, "those of later tasks are first"


def test_what_is_not_trusted_is_said_first(finished, tmp_path):
    record = finished[1].model_copy(deep=True)
    assert "ot trusted" not in run_report.report(finished[0]).html() + terminal_summary(record)
    record.tasks["infer"].metrics["trusted"] = 0.0
    record.tasks["infer"].remark = "The masks do not look like cells."
    record.save(tmp_path)
    html = run_report.report(tmp_path).html()
    warning = html.index("Not trusted, infer")
    assert warning < html.index("class='cards'") and html.count("The masks do not look like cells.") == 1
    text = terminal_summary(record)
    assert text.startswith("NOT TRUSTED, infer: The masks do not look like cells.\n") and text.count("look like") == 1


def test_a_graph_without_a_loop_has_no_section_on_rounds(finished, page, tmp_path):
    record = finished[1].model_copy(deep=True)
    record.tasks = {name: task for name, task in record.tasks.items() if "/" not in name}
    record.save(tmp_path)
    found = Dom(run_report.report(tmp_path).html())
    assert "#rounds" in Dom(page).values("href") and "#rounds" not in found.values("href")
    assert "Rounds" in Dom(page).text and "Rounds" not in found.text


def test_plots_of_the_loop_and_of_the_tasks(finished, page, tmp_path):
    assert Dom(page).values("aria-label") == [
        "em: headline metrics", "loss of pretrain", "graph of the run",
    ]  # fmt: skip
    assert "pretrain" in Dom(page).captions
    record = finished[1].model_copy(deep=True)
    for number in range(2):
        record.tasks[f"em-{number}/cluster"].metrics["foreground_share"] = 0.25
        record.tasks[f"em-{number}/refine-masks"].metrics["foreground_share"] = 0.2
    record.save(tmp_path)
    assert "em: foreground share" in Dom(run_report.report(tmp_path).html()).values("aria-label")


def test_the_page_is_self_contained_and_has_no_script(finished, page):
    dom = Dom(page)
    assert {"script", "link", "iframe", "object"}.isdisjoint(dom.tags)
    ids = dom.values("id")
    for address in dom.values("src", "href", "srcset"):
        inside = address.startswith("data:image/") or address.removeprefix("#") in ids
        assert inside or (finished[0] / address).exists(), address


def test_images_of_the_run_are_embedded(page):
    dom = Dom(page)
    assert dom.images() == sum(caption != "pretrain" for caption in dom.captions) > 10


def test_a_failed_run_has_a_page_too(finished, tmp_path):
    record = finished[1].model_copy(deep=True)
    record.state = "failed"
    for name, task in record.tasks.items():
        if name.startswith("em-1") or name == "infer":
            record.tasks[name] = TaskRecord(stage=task.stage, after=task.after)
    record.tasks["em-1/cluster"].state, record.tasks["em-1/cluster"].error = "failed", "--k: <too many>"
    record.save(tmp_path)
    dom = Dom(run_report.write(tmp_path).read_text())
    assert dom.errors == ["em-1/cluster failed: --k: <too many>"]
    assert dom.cards == {"tasks computed now": "6 of 13"}
    assert dom.table("round")[1] == ["em-1", "–", "–", "0.0", ""]


def test_a_damaged_artifact_costs_its_section_alone(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished[0], copy)
    (copy / "ingest/images/images-00000.tar").write_bytes(b"short")
    dom = Dom(run_report.write(copy).read_text())
    assert len(dom.errors) == 1 and "images-00000.tar" in dom.errors[0]
    assert dom.table("artifact") and not dom.images()


def test_an_empty_record_is_no_obstacle(tmp_path):
    RunRecord(pipeline="nothing").save(tmp_path)
    dom = Dom(run_report.write(tmp_path).read_text())
    assert not dom.errors and dom.cards == {"tasks computed now": "0 of 0"}


def test_many_rejects_are_cut_short(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished[0], copy)
    with (copy / "ingest/images/rejects.csv").open("a") as table:
        table.writelines(f"{i}.tif,damaged\n" for i in range(500))
    dom = Dom(run_report.report(copy).html())
    assert len(dom.table("source", "reason")) == 100 and "401 more" in dom.text


def test_a_record_of_an_earlier_version_is_read(finished, tmp_path):
    """It has no remarks, does not tell which parameters were fed, and calls the backend a runner."""
    text = finished[1].model_dump(exclude={"backend": True, "tasks": {"__all__": {"remark", "fed"}}})
    old = RunRecord.model_validate(text | {"runner": "docker"})
    assert old.backend == "docker"
    old.save(tmp_path)
    assert load(tmp_path) == old and Dom(run_report.report(tmp_path).html()).cards
