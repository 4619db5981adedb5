"""Training in several processes over gloo: the loss and the weights of one process with the same whole batch."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from loop_artifacts import Data
from real_labels import ROOT, wheel_nuclei
from safetensors.torch import load_file

from shared.artifacts.kinds import Model
from shared.artifacts.label_set import NOTE_BORDER_REFINEMENT
from shared.artifacts.manifest import seal, verify
from shared.models.backbones.vit import Encoder
from shared.models.config import EncoderConfig
from shared.models.files import save_model

STEPS = 6
COMMON = {"batch_size": 5, "crop": 64, "steps": STEPS}
"""Five crops: two processes share them unequally."""
PRETRAIN = {"size": "nano", "patch": 16, "downsample": 1}
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """The wheel's nuclei, their foreground as pseudo-masks, of uneven confidence and borders, an untrained encoder."""
    image, mask = wheel_nuclei()
    halves = [(image[:256, :256], mask[:256, :256]), (image[256:], mask[256:])]
    data = Data(tmp_path_factory.mktemp("parallel"), halves)
    conf = {key: np.where(mask > 0, 255, 90).astype(np.uint8) for key, mask in data.masks.items()}
    foreground = {key: (mask > 0).astype(np.uint8) for key, mask in data.masks.items()}
    data.pseudo = data.labels("pseudo", foreground, conf=conf, notes={NOTE_BORDER_REFINEMENT: "edges"})
    config = EncoderConfig.preset("nano", patch=16, channels=1, crop=64)
    torch.manual_seed(0)
    save_model(data.root / "encoder", Encoder(config).state_dict(), config, "# Untrained")
    seal(data.root / "encoder", Model)
    return data


def command(data: Data, kind: str, out: Path) -> list[str]:
    """The command line that trains; outputs and metrics below `out`."""
    if kind == "train_segmentor":
        stage, output = "train_segmentor", "segmentor"
        given = {"labels": data.pseudo, "model": data.root / "encoder", "encoder_rate": 0.5}
        given |= {"steps": 2 * STEPS, "drop_fraction": 0.1}  # half of the steps are taken on noisy labels
    else:
        stage, output, given = "pretrain", "encoder", {"objective": kind, **PRETRAIN}
    arguments = {"images": data.images, output: out / "model", "metrics": out / "metrics.json", **COMMON, **given}
    words = [str(word) for name, value in arguments.items() for word in (f"--{name}", value)]
    return [sys.executable, "-m", "components", stage, *words]


def environment(workers: int, **more: str) -> dict[str, str]:
    fixed = {"CYTOLOOM_THREADS": str(workers), "CYTOLOOM_DEVICE": "cpu", "CYTOLOOM_WORKERS": str(workers)}
    return {**os.environ, **fixed, **more}


def train(data: Data, kind: str, out: Path, workers: int) -> tuple[dict[str, float], dict[str, torch.Tensor], str]:
    """Metrics, weights, and what was said."""
    out.mkdir()
    done = subprocess.run(
        command(data, kind, out), cwd=ROOT, env=environment(workers), capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    verify(out / "model", Model)
    return json.loads((out / "metrics.json").read_text()), load_file(out / "model/model.safetensors"), done.stderr


@pytest.mark.parametrize("kind", ["mae", "dino", "train_segmentor"])
def test_two_processes_train_as_one_does(data: Data, kind: str, tmp_path: Path) -> None:
    losses, weights, _ = train(data, kind, tmp_path / "one", 1)
    shared_losses, shared_weights, said = train(data, kind, tmp_path / "two", 2)
    assert "training in 2 processes" in said
    assert said.count("computing on the CPU") == 1, "one of them reports"
    assert shared_losses == pytest.approx(losses, rel=1e-4)
    assert losses["loss"] != pytest.approx(losses["first_loss"], rel=1e-2), "what training changes is far more"
    one, two = (torch.cat([part.flatten() for _, part in sorted(each.items())]) for each in (weights, shared_weights))
    # where a gradient is rounding alone, as of the keys' biases, Adam makes whole steps of it
    assert torch.isclose(one, two, rtol=1e-3, atol=2e-5).float().mean() > 0.99


def test_killed_and_started_again_it_ends_in_the_same_weights(data: Data, tmp_path: Path) -> None:
    _, unbroken, _ = train(data, "train_segmentor", tmp_path / "unbroken", 2)
    out = tmp_path / "resumed"
    out.mkdir()
    kept = environment(2, CYTOLOOM_CHECKPOINTS=str(tmp_path / "kept"), CYTOLOOM_CHECKPOINT_SECONDS="0")
    options = {"cwd": ROOT, "env": kept, "stderr": subprocess.PIPE, "text": True}
    killed = subprocess.Popen(command(data, "train_segmentor", out), start_new_session=True, **options)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "kept").rglob("checkpoint.pt")) and killed.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)  # the workers end with it: they hold the other end of its standard error
    again = subprocess.run(command(data, "train_segmentor", out), **options, timeout=300)
    assert again.returncode == 0, again.stderr
    assert "resuming from the checkpoint" in again.stderr
    resumed = load_file(out / "model/model.safetensors")
    assert all(torch.equal(resumed[name], value) for name, value in unbroken.items())


def test_an_error_in_the_processes_is_told_once_and_plainly(data: Data, tmp_path: Path) -> None:
    words = [*command(data, "mae", tmp_path), "--weights", str(tmp_path / "none.safetensors")]
    done = subprocess.run(words, cwd=ROOT, env=environment(2), capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    (told,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "none.safetensors: no such file" in told
    assert "Traceback" not in done.stderr and "SIGTERM" not in done.stderr
    assert not (tmp_path / "model").exists()


def test_a_number_of_processes_that_is_none(data: Data, tmp_path: Path) -> None:
    env = {**environment(1), "CYTOLOOM_WORKERS": "many"}
    done = subprocess.run(command(data, "mae", tmp_path), cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    message = "error: CYTOLOOM_WORKERS: 'many' is not a number of processes; give 1 or more, or unset it"
    assert done.stderr.splitlines()[-1] == message
