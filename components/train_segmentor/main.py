"""The M-step: train the segmentor on pseudo-masks.

Defaults (400 steps of 12 crops of 128 px, ViT nano, encoder as it is): about 0.4 s a step on one core (AMD EPYC,
November 2026), twice that where the encoder is trained as well.
"""

import copy
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from components.train_segmentor.calibration import learn_parting, learn_sure
from components.train_segmentor.component import TrainSegmentor
from components.train_segmentor.labelled_crops import LabelledCrops, has_foreground
from components.train_segmentor.loss import DEPTH_WEIGHT, depth_loss, foreground_loss, without_worst
from components.train_segmentor.page import make_page
from shared.artifacts.image_set import ImageReader
from shared.artifacts.label_set import SHARPENED, LabelReader
from shared.artifacts.manifest import copy_payload
from shared.models.backbones.packed_linear import packed
from shared.models.backbones.vit import load_encoder
from shared.models.files import read_config
from shared.models.segmentor import (
    DEPTH,
    FOREGROUND,
    Segmentor,
    SegmentorConfig,
    for_prediction,
    load_segmentor,
    save_segmentor,
)
from shared.stage.declaration import Result
from shared.system.collectives import part
from shared.system.devices import device, threads
from shared.system.errors import UserError
from shared.system.progress import Progress
from shared.training.checkpoint import Checkpoint, History
from shared.training.distributed import average_gradients
from shared.training.moving_average import average
from shared.training.optimiser import parameter_groups
from shared.training.schedule import cosine, set_learning_rate
from shared.training.seeds import seed_everything, step_generator
from shared.training.tensors import to_device
from shared.training.watchdog import watch_loss

WEIGHT_DECAY = 0.05
LATER = 0.5
"""Learning rate and number of steps of the rounds that go on from a segmentor, relative to the first. As few steps are
taken in a first round whose masks missed the edges: more of them learn their errors."""
MOST_KINDS = 4.0
"""So many kinds of images have steps of their own; of more kinds than that each gets fewer. It bounds the time, and was
not measured."""
AVERAGE = 0.98
"""Decay of the moving average of the weights, once it has warmed up."""


def run(stage: TrainSegmentor) -> Result:
    """Train, write the averaged weights, and say whether the loop has converged."""
    cv2.setNumThreads(threads())
    if stage.skip:
        return _pass_through(stage)
    reader, labels = ImageReader(stage.images), LabelReader(stage.labels)
    keys = [key for key in sorted(labels.entries) if key in reader.entries]
    if not has_foreground(labels, keys):
        raise UserError(
            "--labels: not one pixel is foreground, there is nothing to learn: no cell was found in the images. Look "
            "at the page of `cluster`; label a few images and set cluster.use_labels, or try another cluster.k"
        )
    seed_everything(stage.seed)
    segmentor, config, first_round = _start(stage)
    crops = LabelledCrops(
        reader,
        labels,
        keys,
        size=stage.crop,
        channels=config.encoder.channels,
        normalisation=config.encoder.normalisation,
        shrink=config.encoder.shrink,
    )
    where = device()
    missed_edges = labels.info.notes.get(SHARPENED) == "edges" and not crops.drawn_keys
    plan = _plan(stage, first_round, kinds=crops.crops.mixture.kinds, missed_edges=missed_edges)
    trained, history = train(stage, segmentor, crops, plan, where)
    config = config.model_copy(update={"sharpen": labels.info.notes.get(SHARPENED, "none")})
    fast = for_prediction(trained, where)
    config = learn_sure(fast, config, reader, keys, where)
    if crops.drawn_keys:
        config = learn_parting(fast, config, reader, labels, crops.drawn_keys, where)
    metrics = _metrics(history) | {"saddle": config.saddle, "sure": config.sure}
    save_segmentor(
        stage.segmentor, trained, config, _card(stage, plan, config, len(keys), len(crops.drawn_keys), metrics)
    )
    page = make_page(history, fast, config, reader, labels, keys, where)
    return Result(
        metrics=metrics,
        values={"converged": bool(labels.skipped) or stage.agreement >= stage.stop_agreement},
        page=page,
    )


@dataclass(frozen=True)
class Plan:
    """What is particular to a round."""

    steps: int
    """Optimiser steps."""
    rate: float
    """Peak learning rate."""
    left_out: float = 0.0
    """Share of a step's known pixels, of the largest loss, whose foreground is not learned."""


def _plan(stage: TrainSegmentor, first_round: bool, *, kinds: float, missed_edges: bool) -> Plan:
    """How to train in this round on so many kinds of images.

    missed_edges: whether the masks missed the edges in the images, and no person corrected any.
    """
    steps = stage.steps * min(kinds, MOST_KINDS)
    fewer = max(1, round(LATER * steps))
    if not first_round:
        return Plan(fewer, LATER * stage.learning_rate)
    if missed_edges:
        return Plan(fewer, stage.learning_rate, stage.left_out)
    return Plan(round(steps), stage.learning_rate)


def _start(stage: TrainSegmentor) -> tuple[Segmentor, SegmentorConfig, bool]:
    """The network to go on with, and whether it is new: built on an encoder."""
    if read_config(stage.model)["kind"] == "segmentor":
        return *load_segmentor(stage.model), False
    encoder, encoder_config = load_encoder(stage.model)
    config = SegmentorConfig(encoder=encoder_config, heads=(FOREGROUND, DEPTH))
    segmentor = Segmentor(config)
    segmentor.encoder.load_state_dict(encoder.state_dict())
    return segmentor, config, True


def train(
    stage: TrainSegmentor, segmentor: Segmentor, crops: LabelledCrops, plan: Plan, where: str
) -> tuple[Segmentor, History]:
    """The loop. Returns the moving average of the weights, and (step, loss) of every step."""
    segmentor.to(where).train()
    mean = copy.deepcopy(segmentor)
    learning = stage.encoder_rate > 0
    encoder = segmentor.encoder.requires_grad_(learning).train(learning)
    groups = _slower_encoder(parameter_groups(segmentor, WEIGHT_DECAY), segmentor, stage.encoder_rate)
    optimiser = torch.optim.AdamW(groups, lr=plan.rate)
    checkpoint = Checkpoint(segmentor=segmentor, mean=mean, optimiser=optimiser)
    first, history = checkpoint.resume()
    if not learning and where == "cpu":
        encoder = packed(encoder)
    progress = Progress("train_segmentor", plan.steps, "steps", first)
    for step in range(first, plan.steps):
        set_learning_rate(optimiser, cosine(step, plan.steps, peak=plan.rate, warmup=max(1, plan.steps // 10)))
        rng = step_generator(stage.seed, step, stage.number)
        images, wanted = crops.batch(stage.batch_size, rng, part(stage.batch_size))
        target, weight, depth = torch.from_numpy(wanted).to(where).unbind(1)
        with torch.autocast("cuda", torch.bfloat16, enabled=where.startswith("cuda")):
            x = to_device(images, where)
            logits = segmentor.decode(x, encoder(x))
        logits = logits.float()
        learned = without_worst(logits[:, 0], target, weight, plan.left_out) if plan.left_out else weight
        loss = foreground_loss(logits[:, 0], target, learned)
        if segmentor.config.maps > 1:
            loss = loss + DEPTH_WEIGHT * depth_loss(logits[:, 1], depth, weight)
        watch_loss(loss.item(), step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(segmentor.parameters())
        torch.nn.utils.clip_grad_norm_(segmentor.parameters(), 1.0)
        optimiser.step()
        average(mean, segmentor, min(AVERAGE, (1 + step) / (10 + step)))
        history.append((step, loss.item()))
        progress.update(step + 1, f"loss {history[-1][1]:.4f}")
        checkpoint.save_if_due(step + 1, history)
    progress.finish()
    return mean.eval(), history


def _slower_encoder(groups: list[dict], segmentor: Segmentor, encoder_rate: float) -> list[dict]:
    """Split each parameter group in the encoder's part, at its own rate, and the rest."""
    encoder = {id(parameter) for parameter in segmentor.encoder.parameters()}
    split = []
    for group in groups:
        for inside, scale in ((True, encoder_rate), (False, 1.0)):
            chosen = [parameter for parameter in group["params"] if (id(parameter) in encoder) == inside]
            if chosen:
                split.append({**group, "params": chosen, "scale": scale})
    return split


def _pass_through(stage: TrainSegmentor) -> Result:
    """Copy the payload of `model`."""
    if read_config(stage.model)["kind"] != "segmentor":
        raise UserError("--model: with --skip true this must be a segmentor, there is nothing to pass on otherwise")
    copy_payload(stage.model, stage.segmentor)
    return Result(values={"converged": True}, skipped="the EM loop has converged")


def _metrics(history: History) -> dict[str, float]:
    losses = [loss for _, loss in history]
    tail = max(1, len(losses) // 10)
    return {"first_loss": float(np.mean(losses[:tail])), "loss": float(np.mean(losses[-tail:]))}


def _card(
    stage: TrainSegmentor, plan: Plan, config: SegmentorConfig, images: int, drawn: int, metrics: dict[str, float]
) -> str:
    encoder = config.encoder
    learned = f"pseudo-masks of {images - drawn} images; no hand-drawn label was used in this stage"
    if drawn:
        learned = f"pseudo-masks of {images - drawn} images and from the labels that a person drew of {drawn} more"
    return f"""# Segmentor on ViT {encoder.size}, patch {encoder.patch}

Foreground of cells, learned from {learned}.

- Input: {encoder.channels} channels, each scaled so that its {encoder.normalisation.low:g} and \
{encoder.normalisation.high:g} percentiles become 0 and 1; height and width multiples of 16
- Output maps: {", ".join(config.heads)} (logits, pixel by pixel)
- Training: {plan.steps} steps of {stage.batch_size} crops of {stage.crop} px, peak learning rate {plan.rate:g}
- Loss: {metrics["first_loss"]:.3f} at first, {metrics["loss"]:.3f} at last
- Agreement of the pseudo-masks with the round before: {stage.agreement:.3f}
"""
