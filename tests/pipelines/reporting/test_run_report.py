"""The report of a run, made from artifacts of real images as the stages write them."""

import itertools
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile

from pipelines.reporting import run_report
from pipelines.reporting.compare import compare, results
from pipelines.reporting.drawing import arrows, drawing, rows_of
from pipelines.reporting.panels import agreement, galleries
from pipelines.reporting.rounds import START, round_table, rounds
from pipelines.run_folder.record import Input, Output, RunRecord, TaskRecord
from shared.artifacts.image_set import ImageWriter
from shared.artifacts.kinds import ImageSet, LabelSet, Predictions
from shared.artifacts.label_set import LABELLED, LabelWriter
from shared.artifacts.manifest import seal
from shared.reporting.page import Page

ORDER = ("extract-features", "cluster", "refine-masks", "train-segmentor", "evaluate")


def sealed(folder: Path, kind: type) -> str:
    return seal(folder, kind).digest


@pytest.fixture(scope="module")
def finished(tmp_path_factory, nuclei):
    """A run of two rounds on two crops, one of them labelled."""
    run = tmp_path_factory.mktemp("runs") / "small <run>"
    crops = {"a": nuclei[:256, :256], "b": nuclei[256:, 256:]}
    masks = {key: (crop[..., 0] > np.percentile(crop, 85)).astype(np.uint8) for key, crop in crops.items()}
    with ImageWriter(run / "ingest/images") as writer:
        for key, crop in crops.items():
            split = "test" if key == "b" else "train"
            writer.add(key, crop, source=f"{key}.tif", split=split)
    (run / "ingest/images/rejects.csv").write_text('source,reason\nbad.tif,"no image, <text>"\n')
    with LabelWriter(run / "ingest/labels", "truth") as labels:
        labels.add("b", masks["b"], "instances")
    digests = {"images": sealed(run / "ingest/images", ImageSet), "labels": sealed(run / "ingest/labels", LabelSet)}
    outputs = {
        "images": Output(path="ingest/images", kind="ImageSet", digest=digests["images"]),
        "labels": Output(path="ingest/labels", kind="LabelSet", digest=digests["labels"]),
    }
    tasks = {
        "ingest": TaskRecord(
            stage="ingest",
            state="done",
            origin="run folder",
            seconds=2,
            parameters={"source": "/data"},
            outputs=outputs,
            metrics={"images": 2, "rejects": 1},
            rerun="python -m components ingest --source '/data'",
        ),
        "pretrain": TaskRecord(stage="pretrain", state="done", origin="computed", seconds=20, after=["ingest"]),
    }
    page = Page("ingest")
    page.text("Layout: one folder & labels.")
    page.save(run / "ingest/report.html")
    outputs["report"] = Output(path="ingest/report.html", kind="system.HTML", digest="0123456789abcdef")
    page = Page("pretrain")
    page.plot("loss of pretrain", {"mae": [(0, 1), (1, 0.5)]})
    (run / "pretrain").mkdir(parents=True)
    page.save(run / "pretrain/report.html")
    last = "pretrain"
    for number in range(2):
        group = f"em-{number}"
        before = [last]
        for name in ORDER:
            task = TaskRecord(stage=name.replace("-", "_"), state="done", origin="computed", seconds=3)
            task.after = sorted(["ingest", *before])
            tasks[f"{group}/{name}"] = task
            before = [f"{group}/{name}"]
        for name, output in (("cluster", "clusters"), ("refine-masks", "labels")):
            folder = run / group / name / output
            with LabelWriter(folder, "pseudo") as labels:
                others = {"cluster": masks["a"] + 1} if name == "cluster" else None
                labels.add("a", masks["a"], "foreground", masks["a"] * 200, others)
            made = Output(path=f"{group}/{name}/{output}", kind="LabelSet", digest=sealed(folder, LabelSet))
            tasks[f"{group}/{name}"].outputs[output] = made
        tasks[f"{group}/refine-masks"].values["agreement"] = 0.75 * number
        tasks[f"{group}/evaluate"].metrics = {"dice": 0.5 + 0.25 * number, "f1": 0.4 + 0.2 * number}
        tasks[f"{group}/cluster"].inputs["images"] = Input(task="ingest", output="images", digest=digests["images"])
        last = f"{group}/train-segmentor"
    predictions = run / "infer/predictions"
    (predictions / "labels").mkdir(parents=True)
    for key, mask in masks.items():
        tifffile.imwrite(predictions / "labels" / f"{key}.tif", mask.astype(np.uint16))
    made = Output(path="infer/predictions", kind="Predictions", digest=sealed(predictions, Predictions))
    tasks["infer"] = TaskRecord(
        stage="infer",
        state="done",
        origin="computed",
        after=sorted(["ingest", last]),
        outputs={"predictions": made},
        metrics={"images": 2, "cells": 12},
    )
    record = RunRecord(
        pipeline="label-free", state="done", started=1.7e9, seconds=61.5, tasks=tasks, command=["cytoloom"]
    )
    record.save(run)
    return run, record


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.addresses = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset")]


def test_the_page_holds_everything_a_reader_asks_for(finished):
    run, record = finished
    path = run_report.write(run)
    text = path.read_text()
    assert path == run / "report.html" and len(text) < 3_000_000
    for name, task in record.tasks.items():
        assert f">{name}<" in text
        for output in task.outputs.values():
            assert (output.digest[:16] in text) == (output.kind != "system.HTML")
    assert "small &lt;run&gt;" in text and "<run>" not in text
    assert "<td>bad.tif</td><td>no image, &lt;text&gt;</td>" in text
    assert "python -m components ingest --source &#x27;/data&#x27;" in text
    assert "loss of pretrain" in text and "Layout: one folder &amp; labels." in text
    assert "<td>em-1</td><td class='n'>0.75</td><td class='n'>0.6</td>" in text
    assert "from the run folder" in text
    assert "could not be made" not in text


def test_the_page_is_self_contained_and_has_no_script(finished):
    run, _ = finished
    tags = Tags(run_report.write(run).read_text())
    assert {"script", "link", "iframe", "object"}.isdisjoint(tags.tags)
    ids = re.findall(r" id='([\w-]+)'", (run / "report.html").read_text())
    for address in tags.addresses:
        inside = address.startswith("data:image/") or address.removeprefix("#") in ids
        assert inside or (run / address).is_file(), address


def test_pictures_of_labelled_and_unlabelled_images(finished):
    run, record = finished
    labelled, learned = galleries(run, record)
    assert [labelled.key, learned.key] == ["b", "a"]
    captions = [caption for row in labelled.steps for _, caption in row]
    assert captions[1:] == ["prediction", "truth", "green: both; orange: predicted; magenta: missed"]
    names = [[caption.split(";")[0] for _, caption in row] for row in learned.steps]
    assert names[0][1:] == ["em-0: clusters", "em-1: clusters", "prediction"]
    assert names[1:] == [["em-0: proposed", "em-1: proposed"], ["em-0: refined", "em-1: refined"]]
    for picture, _ in [*labelled.overview, *(p for row in learned.steps for p in row)]:
        assert picture.dtype == np.uint8 and picture.shape[2] == 3


def test_agreement_is_coloured_by_who_sees_it():
    rgb = np.zeros((1, 4, 3), np.uint8)
    drawn = agreement(rgb, np.array([[0, 1, 1, 0]]), np.array([[0, 1, 0, 1]])).astype(int)
    nothing, both, found, missed = drawn[0]
    assert not nothing.any()
    assert both[1] == both.max()  # green
    assert found[0] > found[1] > found[2]  # orange
    assert missed[0] > missed[1] < missed[2]  # magenta


def test_the_drawing_shows_every_task_and_what_follows_what(finished):
    _, record = finished
    svg = re.search(r"<svg.*</svg>", drawing(record), re.DOTALL)[0]
    tree = ElementTree.fromstring(svg)
    assert len(tree.findall("g")) == len(record.tasks)
    width, height = float(tree.get("width")), float(tree.get("height"))
    for box in tree.iter("rect"):
        assert float(box.get("x")) >= 0 and float(box.get("x")) + float(box.get("width")) <= width
        assert float(box.get("y")) >= 0 and float(box.get("y")) + float(box.get("height")) <= height
    chain = ["ingest", "pretrain", *(f"em-{i}/{n}" for i in (0, 1) for n in ORDER[:4]), "infer"]
    expected = {
        *itertools.pairwise(chain),
        *((f"em-{i}/train-segmentor", f"em-{i}/evaluate") for i in (0, 1)),
    }
    assert set(arrows(record)) == expected
    assert [group for group, _ in rows_of(record)] == ["", "em-0", "em-1", ""]


def test_boxes_do_not_overlap(finished):
    _, record = finished
    tree = ElementTree.fromstring(re.search(r"<svg.*</svg>", drawing(record), re.DOTALL)[0])
    places = [(float(g.find("rect").get("x")), float(g.find("rect").get("y"))) for g in tree.findall("g")]
    for i, a in enumerate(places):
        for b in places[:i]:
            assert abs(a[0] - b[0]) >= 158 or abs(a[1] - b[1]) >= 54


def test_a_failed_run_has_a_report_too(finished, tmp_path):
    _, record = finished
    failed = record.model_copy(deep=True)
    failed.state = "failed"
    for name, task in failed.tasks.items():
        if name.startswith("em-1") or name == "infer":
            failed.tasks[name] = TaskRecord(stage=task.stage, after=task.after)
    failed.tasks["em-1/cluster"].state, failed.tasks["em-1/cluster"].error = "failed", "--k: <too many>"
    failed.save(tmp_path)
    text = run_report.write(tmp_path).read_text()
    assert "<b>em-1/cluster</b> failed: --k: &lt;too many&gt;" in text and ">failed<" in text
    assert "0 of 2" not in text and "1 of 2" in text


def test_a_damaged_artifact_costs_its_part_alone(finished, tmp_path):
    run, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "ingest/images/images-00000.tar").write_bytes(b"short")
    text = run_report.write(copy).read_text()
    assert "This part could not be made: " in text and "images-00000.tar" in text
    assert "Artifacts and where they come from" in text


def test_scores_on_what_was_drawn_for_the_model_are_not_shown_as_plain_ones(finished, tmp_path):
    run, record = finished
    said = "on the images that were drawn for it: scored_on_training_labels"
    assert said not in run_report.write(run).read_text()
    drawn = tmp_path / "drawn"
    shutil.copytree(run, drawn)
    learned = record.model_copy(deep=True)
    learned.tasks["evaluate"] = TaskRecord(
        stage="evaluate", state="done", metrics={"dice": 0.9, "scored_on_training_labels": 1}
    )
    for number in range(2):
        folder = drawn / f"em-{number}/cluster/clusters"
        shutil.rmtree(folder)
        with LabelWriter(folder, "pseudo", {LABELLED: ["b"]}):
            pass
        sealed(folder, LabelSet)
    learned.save(drawn)
    text = run_report.write(drawn).read_text()
    assert f"<b>0.900</b><span>pixel Dice, {said}</span>" in text and f"Dice, F1 and the like are {said}." in text
    assert [gallery.title.endswith(", drawn for it to learn from)") for gallery in galleries(drawn, learned)] == [
        gallery.key == "b" for gallery in galleries(drawn, learned)
    ]
    assert f"Scores of B are {said}." in compare("a", run, "b", drawn).html()


def test_what_is_handed_on_where_no_round_is_better_than_the_start(finished, tmp_path):
    _, record = finished
    guarded = record.model_copy(deep=True)
    for number in range(2):
        values = {"best_round": -1, "done": number == 1, "ending": "no better" if number == 1 else ""}
        gate = TaskRecord(stage="select_model", state="done", values=values, metrics={"accepted": 0})
        guarded.tasks[f"em-{number}/select-model"] = gate
    guarded.save(tmp_path)
    text = run_report.write(tmp_path).read_text()
    assert "no round was better than the model it started from. Handed on: the model the loop started from." in text
    assert text.count("<td>not better than the best before</td>") == 2 and "Handed on: the segmentor" not in text
    assert ["select_model", "handed on", START, "", ""] in results(guarded, record)
    gate.parameters["keep_worse"], gate.values["best_round"] = True, 1
    guarded.save(tmp_path)
    text = run_report.write(tmp_path).read_text()
    assert "<td>handed on as was asked for, though not better than the best before</td>" in text


def test_an_empty_record_is_no_obstacle(tmp_path):
    RunRecord(pipeline="nothing").save(tmp_path)
    assert "This graph has no EM rounds" in run_report.write(tmp_path).read_text()


def test_the_table_of_rounds(finished):
    _, record = finished
    assert [(r.name, r.dice, r.f1, r.agreement) for r in rounds(record)] == [
        ("em-0", 0.5, 0.4, None),
        ("em-1", 0.75, pytest.approx(0.6), 0.75),
    ]
    lines = round_table(record).splitlines()
    assert lines[2].split() == ["em-0", "0.500", "0.400", "–", "15.0"]
    assert lines[3].split() == ["em-1", "0.750", "0.600", "0.750", "15.0"]
    later = record.model_copy(deep=True)
    later.tasks["em-1/train-segmentor"].skipped = "the EM loop has converged"
    assert "passed through" in round_table(later)
    assert round_table(RunRecord(pipeline="x")) == ""
