"""The graphs classifier, detector, infer and full on a few real images, executed; what each leaves, and its page."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from graph_run import GraphRun
from page_dom import Dom
from real_labels import real_data
from small_config import SMALL, SMALL_CLASSIFIER, SMALL_DETECTOR

from components.evaluate.component import Evaluate
from pipelines.reporting import run_report
from pipelines.reporting.headlines import numbers
from shared.artifacts.annotation import ImageClass
from shared.artifacts.label_set import LabelReader
from shared.artifacts.manifest import read_manifest
from shared.models.files import is_absent

pytestmark = pytest.mark.timeout(1500)
CROPS = {"train": 12, "valid": 10, "test": 8}
"""Crops of each class."""
SMEARS = {"train": 8, "val": 4}


def data(folder: str) -> Path:
    if not (found := real_data() / folder).is_dir():
        pytest.skip(f"{found}: no real images; set CYTOLOOM_DATA to the folder of them")
    return found


def finished(run: GraphRun, *more: object) -> GraphRun:
    run.done = run(*more)
    assert run.done.returncode == 0, run.done.stdout + run.done.stderr
    return run


def page(run: GraphRun) -> Dom:
    found = Dom((run.out / run_report.RUN_PAGE).read_text())
    assert not found.errors
    return found


def results(run: GraphRun, task: str) -> Path:
    """`files` of the task."""
    return run.out / run.tasks()[task].outputs["files"].path


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> GraphRun:
    """A finished run on 60 crops of red blood cells, with a parasite or without."""
    run = GraphRun(tmp_path_factory.mktemp("classifier"), "classifier", SMALL_CLASSIFIER)
    for split, count in CROPS.items():
        for name in ("positive", "negative"):
            files = sorted(data("malaria").glob(f"{split}/{name}/*.png"))
            target = run.source / split / name
            target.mkdir(parents=True)
            for path in files[:: len(files) // count][:count]:
                shutil.copy(path, target)
    return finished(run)


@pytest.fixture(scope="module")
def detector(tmp_path_factory) -> GraphRun:
    """A finished run on 12 blood smears with boxes."""
    run = GraphRun(tmp_path_factory.mktemp("detector"), "detector", SMALL_DETECTOR)
    for split, count in SMEARS.items():
        (run.source / split).mkdir(parents=True)
        for path in sorted(data("bccd").glob(f"{split}/*.jpg"))[:count]:
            shutil.copy(path, run.source / split)
            shutil.copy(path.with_suffix(".xml"), run.source / split)
    return finished(run)


def test_a_classifier_is_trained_checked_and_decides(classifier):
    tasks = classifier.tasks()
    assert {task.state for task in tasks.values()} == {"done"}
    assert [name for name, task in tasks.items() if task.skipped] == ["pretrain"], "an encoder of random weights"
    assert 0 <= tasks["evaluate"].metrics["auroc"] <= 1 and tasks["export-model"].values["accepted"] is True
    classes = LabelReader(classifier.out / tasks["infer"].outputs["predictions"].path).image_classes()
    assert len(classes) == 2 * sum(CROPS.values())
    assert all(isinstance(one, ImageClass) and one.outcome for one in classes.values())
    rows = list(csv.DictReader((results(classifier, "infer") / "classes.csv").open()))
    assert len(rows) == len(classes)


def test_a_detector_is_trained_checked_and_applied(detector):
    tasks = detector.tasks()
    assert {task.state for task in tasks.values()} == {"done"}
    assert [name for name, task in tasks.items() if task.skipped] == ["pretrain"], "an encoder of random weights"
    assert 0 <= tasks["evaluate"].metrics["box_ap50"] <= 1 and tasks["export-model"].values["accepted"] is True
    found = LabelReader(detector.out / tasks["infer"].outputs["predictions"].path).annotations()
    assert len(found) == sum(SMEARS.values())
    coco = json.loads((results(detector, "infer") / "detections.coco.json").read_text())
    assert len(coco["images"]) == len(found)


@pytest.mark.parametrize(("name", "metric"), [("classifier", "auroc"), ("detector", "box_ap50")])
def test_the_page_of_a_run_begins_with_its_headlines_and_shows_what_was_found(name, metric, request):
    run = request.getfixturevalue(name)
    found, tasks = page(run), run.tasks()
    value = numbers([tasks["evaluate"].metrics[metric]])[0]
    assert found.cards[Evaluate.headlines[metric]] == value
    assert "Rounds" not in found.text and found.images() > 4
    lines = [line for line in run.done.stdout.splitlines() if line.startswith("evaluate: ")]
    assert f"{Evaluate.headlines[metric]} {value}" in lines[0]


def test_a_model_of_an_earlier_run_predicts_new_images(classifier, tmp_path):
    """The lineage leads back: the imported model has the digest under which it was exported."""
    run = GraphRun(tmp_path, "infer", {"infer": SMALL_CLASSIFIER["infer"]})
    shutil.copytree(classifier.source / "test", run.source)
    exported = classifier.out / classifier.tasks()["export-model"].outputs["exported"].path
    finished(run, "--param", f"classifier={exported}")
    tasks, digest = run.tasks(), read_manifest(exported).digest
    predictions = run.out / tasks["infer"].outputs["predictions"].path
    assert tasks["infer"].inputs["classifier"].digest == read_manifest(predictions).inputs["classifier"] == digest
    for kind in ("detector", "segmentor"):
        assert is_absent(run.out / tasks[f"import-{kind}"].outputs["model"].path)
        assert tasks[f"import-{kind}"].skipped == f"no {kind} is given"
    assert len(LabelReader(predictions).classes()) == 2 * CROPS["test"]
    assert "accuracy" in tasks["evaluate-predictions"].metrics, "these images have classes"
    done = run("--param", f"segmentor={exported}")
    assert done.returncode == 1 and "a model of kind 'classifier'; give one of kind 'segmentor'" in done.stderr


@pytest.fixture(scope="module")
def full(tmp_path_factory, nuclei) -> GraphRun:
    """A finished run on three crops of nuclei without labels and one, of the split test, with."""
    import stardist
    import tifffile

    small = {**SMALL, **{stage: SMALL_DETECTOR[stage] for stage in ("train_detector", "export_model")}, "rounds": 1}
    run = GraphRun(tmp_path_factory.mktemp("full"), "full", small)
    for split in ("train", "test"):
        (run.source / split).mkdir(parents=True)
    for i in range(3):
        tifffile.imwrite(run.source / f"train/crop{i}.tif", nuclei[128 * i : 128 * i + 128, :160, 0])
    tifffile.imwrite(run.source / "test/crop3.tif", nuclei[384:, :160, 0])
    mask = tifffile.imread(Path(stardist.__file__).parent / "data/images/mask2d.tif")
    tifffile.imwrite(run.source / "test/crop3_masks.tif", mask[384:, :160])
    return finished(run)


def test_full_without_labels_learns_a_detector_from_pseudo_masks_and_no_classifier(full):
    tasks = full.tasks()
    assert {task.state for task in tasks.values()} == {"done"}
    skipped = {name for name, task in tasks.items() if task.skipped}
    assert skipped == {"train-classifier", "evaluate-classifier", "export-classifier"}
    assert "pseudo-masks" in tasks["train-detector"].remark
    for kind in ("detector", "segmentor"):
        assert tasks[f"export-{kind}"].values["accepted"] is True and tasks[f"evaluate-{kind}"].metrics
    predictions = LabelReader(full.out / tasks["infer"].outputs["predictions"].path)
    assert len(predictions) == 4 == len(predictions.annotations()) and not predictions.classes()
    found = page(full)
    assert {"Dice", "AP50 of boxes", "cells found", "boxes found"} <= set(found.cards)
    assert tasks["train-classifier"].skipped in found.text
