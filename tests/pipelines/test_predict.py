"""`cytoloom predict`: from models or runs to a folder of results; a wrong command is one line."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tifffile
from small_classifier import crops, write_classifier
from small_segmentor import write_encoder, write_model

from pipelines.model_locations import find_models
from pipelines.run_folder.record import OutputRecord, RunRecord, TaskRecord
from shared import store
from shared.artifacts.kinds import Files
from shared.artifacts.manifest import verify
from shared.system.errors import UserError

ROOT = Path(__file__).parents[2]
CROPS, TRUTH = crops(12, "lower", seed=7)


def predict(*words: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pipelines", "predict", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, env=os.environ.copy(), capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """`run/` made a segmentor and a classifier, `images/` holds crops and a broken file."""
    folder = tmp_path_factory.mktemp("predict")
    outputs = {"pretrain/encoder": write_encoder, "em-0/segmentor": write_model, "classifier": write_classifier}
    tasks = {}
    for path, write in outputs.items():
        write(folder / "run" / path)
        made = {"model": OutputRecord(path=path, kind="Model", digest=path)}
        tasks[path] = TaskRecord(stage="train", state="done", outputs=made)
    RunRecord(pipeline="test", state="done", tasks=tasks).save(folder / "run")
    (folder / "images/plate").mkdir(parents=True)
    for number, crop in enumerate(CROPS):
        tifffile.imwrite(folder / f"images/plate/{number:02d}.tif", crop[..., 0])
    (folder / "images/broken.tif").write_bytes(b"II*\0")
    return folder


def table(path: Path) -> dict[str, dict[str, str]]:
    with path.open(newline="") as stream:
        return {row["source"]: row for row in csv.DictReader(stream)}


@pytest.fixture(scope="module")
def done(folder) -> subprocess.CompletedProcess:
    return predict(folder / "run", "--source", folder / "images", "--out", folder / "out")


def test_a_run_predicts_new_images(folder, done):
    assert done.returncode == 0, done.stderr
    out = folder / "out"
    rows = table(out / "classes.csv")
    assert set(rows) == {f"plate/{number:02d}.tif" for number in range(12)}
    right = [rows[f"plate/{i:02d}.tif"]["class"] == ("negative", "positive")[k] for i, k in enumerate(TRUTH)]
    assert sum(right) >= 11
    positive = sum(row["outcome"] == "positive" for row in rows.values())
    assert positive and len(list((out / "labels").iterdir())) == positive
    assert table(out / "failures.csv")["broken.tif"]["reason"].startswith("truncated")
    assert "<h2>Positive" in (out / "report.html").read_text()
    assert verify(out, Files).stage == "infer"
    assert {path.name for path in folder.iterdir()} == {"images", "out", "run"}, "nothing left beside"


def test_it_says_what_it_used_and_found(folder, done):
    assert f"segmentor: {folder}/run/em-0/segmentor" in done.stderr
    assert f"classifier: {folder}/run/classifier" in done.stderr
    assert "12 images predicted; " in done.stdout and "cells found" in done.stdout
    assert f"{folder}/out/report.html" in done.stdout and "classes.csv, " in done.stdout
    assert "python -m components" not in done.stderr and "Traceback" not in done.stderr


def test_an_earlier_result_is_replaced_and_anything_else_is_not(folder, done):
    assert done.returncode == 0
    out = folder / "replaced"
    shutil.copytree(folder / "out", out)
    words = [folder / "run/classifier", "--source", folder / "images/plate/03.tif", "--out", out]
    again = predict(*words, "--set", "formats=classes_csv", "--target-error", "none")
    assert again.returncode == 0, again.stderr
    assert {path.name for path in out.iterdir()} == {"classes.csv", "report.html", "artifact.json"}
    assert list(table(out / "classes.csv")) == ["03.tif"]
    (out / "notes.txt").write_text("mine")
    refused = predict(*words)
    assert refused.returncode == 1 and "was changed since it was written" in refused.stderr
    assert (out / "notes.txt").is_file() and (out / "classes.csv").is_file()
    shutil.rmtree(out)


def test_models_and_images_in_a_store(folder, s3, done):
    """A model by its uri, and a run by its prefix; images below a prefix."""
    from shared.store import send

    for kind in ("classifier", "em-0/segmentor"):
        send(folder / "run" / kind, f"{s3}/run/{kind}")
    store.put(f"{s3}/run/run.json", (folder / "run/run.json").read_bytes())
    for path in (folder / "images").rglob("*.tif"):
        store.put(f"{s3}/images/{path.relative_to(folder / 'images')}", path.read_bytes())
    assert find_models([f"{s3}/run"]) == {
        "classifier": f"{s3}/run/classifier",
        "segmentor": f"{s3}/run/em-0/segmentor",
    }
    remote = predict(f"{s3}/run/classifier", "--source", f"{s3}/images", "--out", folder / "remote")
    assert remote.returncode == 0, remote.stderr
    ours, theirs = (table(folder / name / "classes.csv") for name in ("remote", "out"))
    assert ours == theirs
    shutil.rmtree(folder / "remote")


def test_of_a_run_the_exported_model_is_taken_and_else_the_last(tmp_path):
    def model(path: str, kind: str) -> OutputRecord:
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "config.json").write_text(json.dumps({"kind": kind}))
        return OutputRecord(path=path, kind="Model")

    def task(path: str, kind: str, stage: str = "train", state: str = "done") -> TaskRecord:
        return TaskRecord(stage=stage, state=state, outputs={"model": model(path, kind)})

    tasks = {
        "export": task("export", "segmentor", "export_model"),
        "em-0": task("em-0", "segmentor"),
        "em-1": task("em-1", "segmentor"),
        "detector": task("detector", "absent"),
        "first": task("first", "classifier"),
        "last": task("last", "classifier"),
        "failed": task("failed", "classifier", state="failed"),
    }
    RunRecord(pipeline="test", tasks=tasks).save(tmp_path)
    assert find_models([f"{tmp_path}/"]) == {"segmentor": f"{tmp_path}/export", "classifier": f"{tmp_path}/last"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["{0}/nowhere"], "nowhere: no such folder; give the folder or uri of a model, or of a run"),
        (["{0}/images"], "images: neither a model nor a run, no config.json or run.json in it"),
        (["{0}/run/pretrain/encoder"], "a model of kind encoder, which predicts nothing"),
        (["{0}/run", "{0}/run/classifier"], "a second classifier, besides "),
        (["{0}/run", "--source", "{0}/none"], "--source: {0}/none: no such file or folder"),
        (["{0}/run", "--out", "{0}/images"], "--out: {0}/images is not empty and no earlier result"),
        (["{0}/run", "--out", "{0}/run/run.json"], "--out: {0}/run/run.json is a file"),
        (["{0}/run", "--out", "{0}/run/classifier"], "--out: {0}/run/classifier holds a Model, no earlier result"),
        (["{0}/run", "--out", "{0}/images/out"], "--out: {0}/images/out lies in --source"),
        (["{0}/run", "--set", "tle=64"], "--set tle: no such setting; did you mean tile?"),
        (["{0}/run", "--set", "tile"], "--set tile: no value"),
        (["{0}/run", "--set", "tile=65"], "--tile: input should be a multiple of 16"),
        (["{0}/run", "--target-error", "2"], "--target-error: input should be a number > 0, < 1, or 'none'"),
        (["{0}/run", "--runtime", "onx"], "--runtime: input should be 'auto', 'pytorch',"),
    ],
)
def test_a_wrong_command_is_one_line_and_leaves_nothing(folder, words, says, capsys, monkeypatch):
    from pipelines.cli import main

    monkeypatch.setattr("pipelines.predict_command._prepare_process", lambda: None)  # it changes the environment
    given = [word.format(folder) for word in words]
    for flag, value in (("--source", "images"), ("--out", "new")):
        given += [] if flag in given else [flag, f"{folder}/{value}"]
    assert main(["predict", *given]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("error: ") and says.format(folder) in message
    assert not (folder / "new").exists()


def test_locations_that_hold_no_model(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match="not a run record"):
        find_models([str(tmp_path)])
    RunRecord(pipeline="test").save(tmp_path)
    with pytest.raises(UserError, match="this run has made no classifier, detector or segmentor yet"):
        find_models([str(tmp_path)])
