"""train_classifier: killed and resumed, and in two processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from killed_training import assert_killed_training_resumes
from labelled_crops import Labelled, nuclei, write_encoder
from real_labels import ROOT
from safetensors.torch import load_file

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    rows = [*nuclei(120, "upper", 0, "train"), *nuclei(120, "upper", 1, "val"), *nuclei(60, "lower", 2, "test")]
    return Labelled(tmp_path_factory.mktemp("nuclei")).write(rows)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "encoder")


def command(data: Labelled, encoder: Path, out: Path, **options) -> list[str]:
    given = {
        "images": data.images,
        "truth": data.truth,
        "encoder": encoder,
        "classifier": out,
        "batch_size": 5,
        "steps": 24,
    }
    words = [str(word) for name, value in (given | options).items() for word in (f"--{name}", value)]
    return [sys.executable, "-m", "components", "train_classifier", *words]


def test_killed_and_started_again_it_ends_in_the_same_weights(data: Labelled, encoder: Path, tmp_path: Path) -> None:
    assert_killed_training_resumes(lambda out: command(data, encoder, out), tmp_path)


@pytest.mark.timeout(600)
def test_two_processes_train_as_one_does(data: Labelled, encoder: Path, tmp_path: Path) -> None:
    made = {}
    for workers in (1, 2):
        fixed = {"CYTOLOOM_THREADS": str(workers), "CYTOLOOM_DEVICE": "cpu", "CYTOLOOM_WORKERS": str(workers)}
        words = command(
            data, encoder, tmp_path / str(workers), metrics=tmp_path / f"{workers}.json", steps=6, stem="false"
        )
        done = subprocess.run(words, cwd=ROOT, env={**os.environ, **fixed}, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stderr
        assert ("training in 2 processes" in done.stderr) == (workers == 2)
        weights = load_file(tmp_path / str(workers) / "model.safetensors")
        metrics = json.loads((tmp_path / f"{workers}.json").read_text())
        made[workers] = (
            metrics["loss"],
            torch.cat([weights[name].flatten() for name in sorted(weights) if "reference" not in name]),
        )
    assert made[1][0] == pytest.approx(made[2][0], rel=1e-4)
    assert torch.isclose(made[1][1], made[2][1], rtol=1e-3, atol=2e-5).float().mean() > 0.99


@pytest.mark.timeout(600)
def test_batch_norms_of_two_processes_agree(data: Labelled, encoder: Path, tmp_path: Path) -> None:
    """Each sees its own part of a batch; they score val with the same statistics, and stop together."""
    fixed = {"CYTOLOOM_THREADS": "2", "CYTOLOOM_DEVICE": "cpu", "CYTOLOOM_WORKERS": "2"}
    words = command(data, encoder, tmp_path / "a", steps=30, batch_size=8)
    done = subprocess.run(words, cwd=ROOT, env={**os.environ, **fixed}, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    weights = load_file(tmp_path / "a/model.safetensors")
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert not torch.equal(weights["stem.layers.1.running_mean"], torch.zeros(32))
