"""The training loop of the encoder."""

from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from components.pretrain.component import Pretrain
from shared.models.backbones.vit import Encoder
from shared.system.progress import Progress
from shared.training.checkpoint import Checkpoint
from shared.training.distributed import data_parallel
from shared.training.history import History
from shared.training.optimiser import adamw
from shared.training.prefetch import prefetch
from shared.training.schedule import cosine, set_learning_rate
from shared.training.watchdog import watch_loss

MAX_GRADIENT_NORM = 3.0
"""Norm to which gradients are clipped."""


class Objective(Protocol):
    """A self-supervised objective: the batches and the loss of a training."""

    weight_decay: float
    betas: tuple[float, float]
    """Of AdamW."""
    network: nn.Module
    """What `loss` calls; the loop makes it data-parallel."""

    @property
    def module(self) -> nn.Module:
        """What the optimiser trains."""

    @property
    def encoder(self) -> Encoder:
        """The encoder that is kept."""

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What a checkpoint holds besides the optimiser."""

    def batch(self, step: int, batch_size: int) -> Any:
        """Return the input of a step, on the CPU, which follows from the seed and the step alone."""

    def loss(self, batch: Any) -> Tensor:
        """Return the loss of a batch, over all processes."""

    def after_step(self, step: int, steps: int) -> None:
        """Act after the optimiser's step; raise UserError where the training has collapsed."""


def train(stage: Pretrain, objective: Objective, where: str) -> History:
    """Train on device `where`. Returns (step, loss) of every step, those before a restart included."""
    optimiser = adamw(
        objective.module,
        learning_rate=stage.learning_rate,
        weight_decay=objective.weight_decay,
        betas=objective.betas,
    )
    checkpoint = Checkpoint(**objective.parts, optimiser=optimiser)
    first, history = checkpoint.resume()
    objective.network = data_parallel(objective.module)
    batches = prefetch(partial(objective.batch, batch_size=stage.batch_size), first, stage.steps)
    progress = Progress("pretrain", stage.steps, "steps", first)
    warmup = max(1, stage.steps // 10)
    for step, batch in enumerate(batches, first):
        set_learning_rate(optimiser, cosine(step, stage.steps, peak=stage.learning_rate, warmup=warmup))
        with torch.autocast("cuda", torch.bfloat16, enabled=where.startswith("cuda")):
            loss = objective.loss(batch)
        value = loss.item()
        watch_loss(value, step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.module.parameters(), MAX_GRADIENT_NORM)
        optimiser.step()
        objective.after_step(step, stage.steps)
        history.append((step, value))
        progress.update(step + 1, f"loss {value:.4f}")
        checkpoint.save_if_due(step + 1, history)
    progress.finish()
    return history
