"""Checkpoints that resume bit for bit."""

import pickle
import random
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from shared.training import checkpoint_location
from shared.training.checkpoint import Checkpoint, read_checkpoint
from shared.training.moving_average import update_average
from shared.training.optimiser import parameter_groups
from shared.training.schedule import cosine, set_learning_rate
from shared.training.seeds import seed_everything, step_generator

STEPS = 7


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A checkpoint folder in use, written to after every step."""
    monkeypatch.setenv("CYTOLOOM_CHECKPOINT_SECONDS", "0")
    checkpoint_location.set_location(tmp_path / "kept")
    yield tmp_path / "kept"
    checkpoint_location.set_location(None)


def little_run(stop: int = STEPS) -> tuple[dict[str, torch.Tensor], list[tuple[int, float]], list[float]]:
    """Train with dropout, noise from three global generators and AdamW until step `stop`, from a checkpoint if any."""
    seed_everything(5)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Dropout(0.4), nn.Linear(16, 1))
    mean = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Dropout(0.4), nn.Linear(16, 1))
    optimiser = torch.optim.AdamW(parameter_groups(model, 0.05))
    checkpoint = Checkpoint(model=model, mean=mean, optimiser=optimiser)
    first, history = checkpoint.resume()
    for step in range(first, stop):
        set_learning_rate(optimiser, cosine(step, STEPS, peak=0.05, warmup=2))
        x = torch.from_numpy(step_generator(5, step).normal(size=(8, 6))).float() + random.random() + np.random.rand()
        loss = model(x).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        update_average(mean, model, 0.9)
        history.append((step, loss.item()))
        checkpoint.save_if_due(step + 1, history)
    state = {**model.state_dict(), **{f"mean.{k}": v for k, v in mean.state_dict().items()}}
    return state, history, [random.random(), np.random.rand(), torch.rand(1).item()]


@pytest.mark.parametrize("stop", range(STEPS))
def test_interrupted_anywhere_ends_in_the_same_bits(folder: Path, stop: int) -> None:
    checkpoint_location.set_location(None)
    state, history, random_after = little_run()
    checkpoint_location.set_location(folder)
    little_run(stop)
    resumed, resumed_history, resumed_random = little_run()
    assert all(torch.equal(state[name], resumed[name]) for name in state)
    assert (resumed_history, resumed_random) == (history, random_after)


def test_how_often_it_is_saved_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    often, _, _ = little_run()
    (folder / "checkpoint.pt").unlink()
    monkeypatch.setenv("CYTOLOOM_CHECKPOINT_SECONDS", "9999")
    never, _, _ = little_run()
    assert not list(folder.iterdir())
    assert all(torch.equal(often[name], never[name]) for name in often)


def test_a_half_written_checkpoint_is_never_in_the_way(folder: Path) -> None:
    whole, _, _ = little_run()
    data = (folder / "checkpoint.pt").read_bytes()
    assert [p.name for p in folder.iterdir()] == ["checkpoint.pt"]
    (folder / "checkpoint.pt").unlink()
    (folder / "checkpoint.pt.partial").write_bytes(data[: len(data) // 2])  # killed while it was being written
    again, _, _ = little_run()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    (folder / "checkpoint.pt").write_bytes(data[: len(data) // 2])  # a disk that lost the end
    again, _, _ = little_run()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def save_often(number: int) -> None:
    checkpoint = Checkpoint(model=nn.Linear(40, 40))
    for step in range(60):
        checkpoint.save(step, [(step, 1.0)])
        if number and step % 20 == 19:
            checkpoint_location.remove()


def test_runs_of_the_same_settings_do_not_disturb_each_other(folder: Path) -> None:
    """Both save to one folder, and one ends, again and again."""
    beside = [get_context("fork").Process(target=save_often, args=(number,)) for number in (0, 1)]
    for process in beside:
        process.start()
    for process in beside:
        process.join()
    assert [process.exitcode for process in beside] == [0, 0]
    Checkpoint(model=nn.Linear(40, 40)).save(3, [])
    assert [p.name for p in folder.iterdir()] == ["checkpoint.pt"]
    saved = read_checkpoint(folder / "checkpoint.pt")
    assert saved is not None and saved["step"] == 3


class Harmful:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("executed"),))


def test_a_checkpoint_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old.pt").write_bytes(pickle.dumps(Harmful()))
    torch.save({"step": 3, "parts": Harmful()}, "new.pt")
    assert read_checkpoint(Path("old.pt")) is None
    assert read_checkpoint(Path("new.pt")) is None
    assert not Path("executed").exists()


def test_without_a_folder_nothing_is_kept() -> None:
    checkpoint = Checkpoint(model=nn.Linear(1, 1))
    assert checkpoint.path is None
    assert checkpoint.resume() == (0, [])
    checkpoint.save(1, [])
