"""Schedule, moving average, parameter groups, generators and watchdog, against torch's own."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from shared.system.errors import UserError
from shared.training.moving_average import update_average
from shared.training.optimiser import layer_decay_groups, parameter_groups, scale_part
from shared.training.schedule import cosine, set_learning_rate
from shared.training.seeds import step_generator, torch_generator
from shared.training.watchdog import watch_loss, watch_spread


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
        update_average(ours, model, 0.8)
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
        with pytest.raises(UserError, match=r"the spread is .*: training has collapsed"):
            watch_spread(spread, 0.1, "the spread", 3)


def test_a_part_has_its_own_learning_rate() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimiser = torch.optim.AdamW(scale_part(parameter_groups(model, 0.1), model[0], 0.25))
    set_learning_rate(optimiser, 0.8)
    rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    assert [rates[id(p)] for p in model.parameters()] == [0.2, 0.2, 0.8, 0.8]
    decays = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert [decays[id(p)] for p in model.parameters()] == [0.1, 0.0, 0.1, 0.0]


def test_each_layer_learns_slower_than_the_next() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    groups = layer_decay_groups(parameter_groups(model, 0.1), [model[0], model[1], model[2]], 0.5)
    optimiser = torch.optim.AdamW(groups)
    set_learning_rate(optimiser, 0.8)
    rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    assert [rates[id(p)] for p in model.parameters()] == [0.1, 0.1, 0.2, 0.2, 0.4, 0.4, 0.8, 0.8]
    decays = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert [decays[id(p)] for p in model.parameters()] == [0.1, 0.0] * 4
