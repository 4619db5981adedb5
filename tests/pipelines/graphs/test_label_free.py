"""The whole graph on a few real images, executed once; then repeated, killed, and re-run task by task."""

import re
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from browser import render
from graph_run import ROOT, GraphRun
from small_config import SMALL
from small_segmentor import write_model

from components.select_model.component import SelectModel
from components.select_model.main import run as select_model
from pipelines.executor.cache import Cache
from pipelines.reporting.repetitions import loops, started_from
from pipelines.run_folder import record
from shared.artifacts.manifest import hash_folder, is_artifact, verify
from shared.metrics.classification import Classification

STAGES = ["extract-features", "cluster", "refine-masks", "train-segmentor", "select-model", "evaluate"]
ONCE = ("ingest", "pretrain", "sample-images", "evaluate-predictions", "infer", "export-model")
TASKS = {*ONCE, *(f"em-{number}/{stage}" for number in (0, 1) for stage in STAGES)}


@pytest.fixture(scope="module")
def run(tmp_path_factory, nuclei) -> GraphRun:
    """Return a finished run on three crops without labels and one with labels."""
    import stardist
    import tifffile

    made = GraphRun(tmp_path_factory.mktemp("label_free"), "label_free", SMALL)
    made.source.mkdir()
    mask = tifffile.imread(Path(stardist.__file__).parent / "data/images/mask2d.tif")
    for i in range(4):
        tifffile.imwrite(made.source / f"crop{i}.tif", nuclei[128 * i : 128 * i + 128, :160, 0])
    tifffile.imwrite(made.source / "crop3_masks.tif", mask[384:, :160])
    made.done = made()
    assert made.done.returncode == 0, made.done.stderr
    return made


def test_every_task_leaves_a_sealed_artifact_at_the_place_named_for_it(run):
    made = record.load(run.out)
    assert set(made.tasks) == TASKS and {task.state for task in made.tasks.values()} == {"done"}
    for name, task in made.tasks.items():
        artifacts = [item for item in task.outputs.values() if not item.kind.startswith("system.")]
        assert artifacts
        for item in artifacts:
            assert item.path.startswith(f"{name}/")
            assert verify(run.out / item.path).digest == item.digest
        assert (run.out / name / "log.txt").is_file() and (run.out / name / "report.html").is_file()


def test_what_is_recorded_as_input_is_what_the_stage_read(run):
    made = record.load(run.out)
    for name, task in made.tasks.items():
        for item in task.outputs.values():
            if is_artifact(run.out / item.path):
                lineage = verify(run.out / item.path).inputs
                assert lineage == {key: value.digest for key, value in task.inputs.items()}, name


def test_the_record_tells_remarks_and_what_the_graph_feeds(run):
    tasks = record.load(run.out).tasks
    assert tasks["ingest"].remark and tasks["em-0/select-model"].remark
    assert tasks["em-0/train-segmentor"].fed == ["drop_fraction"]
    assert {"agreement", "skip", "incumbent_round"} <= set(tasks["em-1/select-model"].fed)
    assert "agreement" not in tasks["em-0/refine-masks"].metrics and tasks["em-0/refine-masks"].values["agreement"] == 0


def test_the_terminal_ends_with_the_rounds_the_stages_and_the_report(run):
    out = run.done.stdout
    assert "em-0" in out and "em-1" in out and "Dice" in out and "train_segmentor" in out
    assert out.strip().splitlines()[-1] == f"report: {run.out / 'report.html'}"
    assert (run.out / "report.html").is_file()


def test_a_browser_draws_every_stages_page_as_the_pipeline_ui_shows_it(run):
    """In an isolated iframe: every picture and plot is drawn, without an error and without a request."""
    made = record.load(run.out)
    pages = {task.stage: run.out / name / "report.html" for name, task in made.tasks.items() if not task.skipped}
    pages["run"] = run.out / "report.html"
    for stage, path in pages.items():
        page = path.read_text()
        found = render(page)
        assert found.console == [] and found.requests == [], stage
        assert len(found.images) == page.count("<img ") and len(found.plots) == page.count("<svg "), stage
        assert all(data > 0 and width > 0 for data, width in found.images), stage
        assert all(shapes > 2 and width > 0 for shapes, width in found.plots), stage
        assert found.images or found.plots, stage
        assert "</table>" in page or found.images, stage


def test_the_browser_would_notice(run):
    strict = (run.out / "report.html").read_text()
    page = re.sub("<meta http-equiv='Content-Security-Policy'[^>]*>", "", strict)
    assert page != strict
    for fault, said in (
        ("<script>throw new Error('broken')</script>", "broken"),
        ("<script>localStorage.setItem('a', 1)</script>", "localStorage"),
    ):
        assert said in " ".join(render(page.replace("</body>", fault + "</body>")).console)
    asked = render(page.replace("</body>", "<link rel='stylesheet' href='http://elsewhere.example/a.css'></body>"))
    assert asked.requests == ["elsewhere.example/a.css"]
    held = render(strict.replace("</body>", "<link rel='stylesheet' href='http://elsewhere.example/a.css'></body>"))
    assert held.requests == [] and "Content Security Policy" in " ".join(held.console), "the page's policy"
    with pytest.raises(AssertionError, match="NOT DRAWN"):
        render(page.replace("</body>", "<img src='data:image/png;base64,AAAA'></body>"))


def test_the_pixels_confusion_matrix_stands_with_the_task_and_in_the_cache(run, tmp_path):
    tasks = record.load(run.out).tasks
    for name in ("evaluate-predictions", "em-1/evaluate"):
        assert tasks[name].outputs["classification"].path == f"{name}/classification.json"
        text = (run.out / name / "classification.json").read_text()
        finished = Cache(run.folder / "cache").restore(tasks[name].key, tmp_path / name)
        assert (tmp_path / name / "classification.json").read_text() == text
        found = Classification.model_validate_json(text)
        assert finished.outputs["classification"].metadata == found.metadata()
        assert bool(found.roc) == (name != "evaluate-predictions"), "what infer wrote has no probability"
        assert sum(map(sum, found.confusion)) == 128 * 160
    assert "ClassificationMetrics" not in (run.out / "report.html").read_text()


def test_a_second_start_computes_nothing(run):
    before = run.digests()
    assert run().returncode == 0
    assert set(run.origins().values()) == {"run folder"}
    assert run.digests() == before


def test_the_same_images_elsewhere_are_the_same_to_all_but_ingest(run, tmp_path):
    there = tmp_path / "moved"
    shutil.copytree(run.source, there)
    done = run("--source", there, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    origins = {name: task.origin for name, task in record.load(tmp_path / "run").tasks.items()}
    assert origins.pop("ingest") == "computed" and set(origins.values()) == {"cache"}


def test_a_setting_of_the_last_stage_runs_it_and_what_scores_it_alone(run, tmp_path):
    done = run("--set", "infer.foreground_threshold=0.6", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    origins = {name: task.origin for name, task in record.load(tmp_path / "run").tasks.items()}
    assert {name for name, origin in origins.items() if origin == "computed"} == {"infer", "evaluate-predictions"}
    assert set(origins.values()) == {"computed", "cache"}


def test_the_recorded_command_makes_the_same_again(run):
    task = record.load(run.out).tasks["em-1/refine-masks"]
    again = subprocess.run(shlex.split(task.rerun), cwd=ROOT, env=run.env, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert verify(run.out / "em-1/refine-masks/labels-again").digest == task.outputs["labels"].digest


def test_a_users_model_is_selected_where_the_loop_makes_it_worse(run, tmp_path):
    """Training at a hundred times the learning rate spoils a good model; only `always_accept` selects it."""
    own, out = write_model(tmp_path / "own"), tmp_path / "run"
    start = ["--set", "rounds=1", "--set", f"pretrain.weights_from={own}"]
    done = run(*start, "--set", "train_segmentor.learning_rate=0.3", "--out", out)
    assert done.returncode == 0, done.stderr
    tasks = record.load(out).tasks
    selection = tasks["em-0/select-model"]
    assert tasks["pretrain"].skipped and selection.metrics["accepted"] == 0 and selection.values["best_round"] == -1
    (loop,) = loops(record.load(out))
    assert started_from(record.load(out), loop) == ["pretrain/encoder"] and "pretrain/encoder" in done.stdout
    assert selection.remark in done.stdout
    spoilt, kept = out / tasks["em-0/train-segmentor"].outputs["segmentor"].path, out / selection.outputs["best"].path
    given, best, trained = (hash_folder(folder)["model.safetensors"] for folder in (own, kept, spoilt))
    assert best == given != trained and tasks["infer"].inputs["segmentor"].digest == selection.outputs["best"].digest
    (tmp_path / "asked").mkdir()
    images, truth = (out / tasks["ingest"].outputs[name].path for name in ("images", "labels"))
    asked = SelectModel(
        images=images, truth=truth, candidate=spoilt, incumbent=own, best=tmp_path / "asked", always_accept=True
    )
    assert select_model(asked).values["best_round"] == 0 and hash_folder(asked.best)["model.safetensors"] == trained


def test_killed_in_training_the_same_command_ends_with_the_same_weights(run, tmp_path):
    """kill -9 of the executor while `train_segmentor` runs: the finished tasks are found, training goes on."""
    out = tmp_path / "run"
    options = ["--out", out, "--no-cache", "--set", "rounds=1"]
    process = subprocess.Popen(
        run.words(*options), cwd=ROOT, env=run.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    end = time.monotonic() + 300
    while process.poll() is None and not (out / "em-0/train-segmentor/log.txt").exists():
        assert time.monotonic() < end, "it never came to training"
        time.sleep(0.05)
    assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (out / "em-0/train-segmentor/segmentor/artifact.json").exists()
    done = run(*options)
    assert done.returncode == 0, done.stderr
    tasks = record.load(out).tasks
    assert {tasks[name].origin for name in ("ingest", "pretrain", "em-0/refine-masks")} == {"run folder"}
    expected = record.load(run.out).tasks
    trained = tasks["em-0/train-segmentor"].outputs["segmentor"].digest
    assert trained == expected["em-0/train-segmentor"].outputs["segmentor"].digest
