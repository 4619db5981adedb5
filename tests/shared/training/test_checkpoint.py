"""Schedule, average, watchdog, and checkpoints that resume bit for bit."""

import math
import pickle
import random
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from shared.system.errors import UserError
from shared.training import checkpoint_location as checkpoints
from shared.training.checkpoint import Checkpoint, read_checkpoint
from shared.training.moving_average import average
from shared.training.optimiser import parameter_groups
from shared.training.schedule import cosine, set_learning_rate
from shared.training.seeds import seed_everything, step_generator, torch_generator
from shared.training.watchdog import watch_loss, watch_spread

STEPS = 7


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A checkpoint folder in use, written to after every step."""
    monkeypatch.setenv("CYTOLOOM_CHECKPOINT_SECONDS", "0")
    checkpoints.use(tmp_path / "kept")
    yield tmp_path / "kept"
    checkpoints.use(None)


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
        average(mean, model, 0.9)
        history.append((step, loss.item()))
        checkpoint.save_if_due(step + 1, history)
    state = {**model.state_dict(), **{f"mean.{k}": v for k, v in mean.state_dict().items()}}
    return state, history, [random.random(), np.random.rand(), torch.rand(1).item()]


@pytest.mark.parametrize("stop", range(STEPS))
def test_interrupted_anywhere_ends_in_the_same_bits(folder: Path, stop: int) -> None:
    checkpoints.use(None)
    state, history, random_after = little_run()
    checkpoints.use(folder)
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
            checkpoints.remove()


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


def test_cosine_follows_torch() -> None:
    """torch's own LinearLR and CosineAnnealingLR, one after the other."""
    optimiser = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.2)
    up = torch.optim.lr_scheduler.LinearLR(optimiser, start_factor=0.25, total_iters=3)
    down = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=16, eta_min=0.01)
    theirs = []
    schedule = torch.optim.lr_scheduler.SequentialLR(optimiser, [up, down], milestones=[4])
    for _ in range(20):
        theirs.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    ours = [cosine(step, 20, peak=0.2, warmup=4, floor=0.01) for step in range(20)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    assert cosine(0, 1, peak=1.0, warmup=0) == 1.0


def test_average_follows_torch() -> None:
    torch.manual_seed(0)
    models = [nn.Linear(3, 2) for _ in range(4)]
    ours = nn.Linear(3, 2)
    ours.load_state_dict(models[0].state_dict())
    multi = torch.optim.swa_utils.get_ema_multi_avg_fn(0.8)
    theirs = torch.optim.swa_utils.AveragedModel(nn.Linear(3, 2), multi_avg_fn=multi)
    for model in models:
        theirs.update_parameters(model)
    for model in models[1:]:
        average(ours, model, 0.8)
    torch.testing.assert_close(ours.weight, theirs.module.weight)


def test_parameter_groups_split_every_parameter_once() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.LayerNorm(4), nn.Linear(4, 2))
    model[2].bias.requires_grad_(False)
    decayed, plain = parameter_groups(model, 0.1)
    assert [p.shape for p in decayed["params"]] == [model[0].weight.shape, model[2].weight.shape]
    assert [id(p) for p in plain["params"]] == [id(model[0].bias), id(model[1].weight), id(model[1].bias)]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)


def test_generators_depend_on_seed_step_and_stream_alone() -> None:
    drawn = {(s, t, u): step_generator(s, t, u).random() for s in (0, 1) for t in (0, 1) for u in (0, 1)}
    assert len(set(drawn.values())) == 8
    assert step_generator(1, 0, 1).random() == drawn[1, 0, 1]
    assert torch.equal(torch.rand(3, generator=torch_generator(4, 9)), torch.rand(3, generator=torch_generator(4, 9)))


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_watchdog_stops_on_what_is_no_number(loss: float) -> None:
    watch_loss(1e6, 3)
    with pytest.raises(UserError, match=r"step 3.*--learning_rate"):
        watch_loss(loss, 3)


def test_watchdog_stops_on_collapse() -> None:
    watch_spread(0.2, 0.1, "the spread", 3)
    for spread in (0.05, math.nan):
        with pytest.raises(UserError, match="collapsed: the spread"):
            watch_spread(spread, 0.1, "the spread", 3)
