"""The training loop of the segmentor."""

import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from components.train_segmentor.component import TrainSegmentor
from components.train_segmentor.labelled_crops import LabelledCrops
from components.train_segmentor.plan import Plan
from shared.models.backbones.packed_linear import pack_linear_layers
from shared.models.segmentor import Segmentor
from shared.system.collectives import part
from shared.system.progress import Progress
from shared.training.checkpoint import Checkpoint
from shared.training.distributed import data_parallel
from shared.training.history import History
from shared.training.moving_average import update_average
from shared.training.optimiser import parameter_groups, scale_part
from shared.training.prefetch import prefetch
from shared.training.schedule import cosine, set_learning_rate
from shared.training.seeds import step_generator
from shared.training.tensors import to_device
from shared.training.watchdog import watch_loss

WEIGHT_DECAY = 0.05
AVERAGE_DECAY = 0.98
"""Decay of the moving average of the weights, once it has warmed up."""
MAX_GRADIENT_NORM = 1.0
"""Norm to which gradients are clipped."""


def train(
    stage: TrainSegmentor, segmentor: Segmentor, crops: LabelledCrops, plan: Plan, where: str
) -> tuple[Segmentor, History]:
    """Train on device `where`. Returns the moving average of the weights, and (step, loss) of every step."""
    segmentor.to(where).train()
    average = copy.deepcopy(segmentor)
    trains_encoder = stage.encoder_rate > 0
    segmentor.encoder.requires_grad_(trains_encoder).train(trains_encoder)
    groups = scale_part(parameter_groups(segmentor, WEIGHT_DECAY), segmentor.encoder, stage.encoder_rate)
    optimiser = torch.optim.AdamW(groups, lr=plan.rate)
    checkpoint = Checkpoint(segmentor=segmentor, mean=average, optimiser=optimiser)
    first, history = checkpoint.resume()
    network = _network(segmentor, where, trains_encoder=trains_encoder)
    progress = Progress("train_segmentor", plan.steps, "steps", first)
    for step, (images, planes) in enumerate(_batches(stage, crops, first, plan.steps), first):
        set_learning_rate(optimiser, cosine(step, plan.steps, peak=plan.rate, warmup=max(1, plan.steps // 10)))
        with torch.autocast("cuda", torch.bfloat16, enabled=where.startswith("cuda")):
            logits = network(to_device(images, where))
        wanted = torch.from_numpy(planes).to(where)
        loss = crops.target.loss(logits.float(), wanted, drop_fraction=plan.drop_fraction)
        watch_loss(loss.item(), step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(segmentor.parameters(), MAX_GRADIENT_NORM)
        optimiser.step()
        update_average(average, segmentor, min(AVERAGE_DECAY, (1 + step) / (10 + step)))
        history.append((step, loss.item()))
        progress.update(step + 1, f"loss {history[-1][1]:.4f}")
        checkpoint.save_if_due(step + 1, history)
    progress.finish()
    return average.eval(), history


def _batches(
    stage: TrainSegmentor, crops: LabelledCrops, first: int, steps: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and planes of this process, step by step."""
    mine = part(stage.batch_size)

    def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
        return crops.batch(stage.batch_size, step_generator(stage.seed, step, stage.stream), mine)

    return prefetch(batch, first, steps)


def _network(segmentor: Segmentor, where: str, *, trains_encoder: bool) -> Callable[[Tensor], Tensor]:
    """Images -> logits. A frozen encoder stays outside the data-parallel module, on a CPU with packed layers."""
    if trains_encoder:
        return data_parallel(segmentor)
    encoder = pack_linear_layers(segmentor.encoder) if where == "cpu" else segmentor.encoder
    decoder = data_parallel(segmentor.decoder)
    return lambda images: decoder(images, encoder(images))
