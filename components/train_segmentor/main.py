"""Train a segmentor on label images.

Defaults (400 steps of 12 crops of 128 px, ViT nano, encoder frozen): about 0.4 s a step on one core (AMD EPYC, November
2026), twice that where the encoder is trained as well.
"""

import copy
from dataclasses import dataclass

import cv2
import torch

from components.train_segmentor.calibration import calibrate_high_threshold, calibrate_splitting
from components.train_segmentor.card import model_card
from components.train_segmentor.component import TrainSegmentor
from components.train_segmentor.labelled_crops import LabelledCrops, has_foreground
from components.train_segmentor.page import make_page
from shared.artifacts.image_set import ImageReader, median_um_per_px
from shared.artifacts.label_set import BORDER_REFINEMENT, LabelReader
from shared.artifacts.manifest import copy_payload
from shared.artifacts.postprocessing import PostProcessing
from shared.models.backbones.packed_linear import packed
from shared.models.backbones.vit import Encoder
from shared.models.config import SegmentorArchitecture, SegmentorConfig
from shared.models.files import load_config, save_model
from shared.models.load import load_model
from shared.models.segmentor import Segmentor
from shared.models.tiled_inference import TiledPredictor
from shared.stage.declaration import Result
from shared.system.collectives import part
from shared.system.devices import device, threads
from shared.system.errors import UserError
from shared.system.progress import Progress
from shared.targets import load_target
from shared.training.checkpoint import Checkpoint, History
from shared.training.distributed import average_gradients
from shared.training.history import first_and_last_loss
from shared.training.moving_average import average
from shared.training.optimiser import parameter_groups, scale_part
from shared.training.schedule import cosine, set_learning_rate
from shared.training.seeds import seed_everything, step_generator
from shared.training.tensors import to_device
from shared.training.watchdog import watch_loss

WEIGHT_DECAY = 0.05
FURTHER = 0.5
"""Learning rate and number of steps to train a segmentor further, relative to a new one. As few steps are taken on noisy
labels: more of them learn the errors."""
MAX_KINDS = 4.0
"""Kinds of images that have steps of their own; it bounds the time, and was not measured."""
AVERAGE = 0.98
"""Decay of the moving average of the weights, once it has warmed up."""
MAX_GRADIENT = 1.0
"""Norm to which gradients are clipped."""


def run(stage: TrainSegmentor) -> Result:
    """Train, calibrate the post-processing, and write the averaged weights."""
    cv2.setNumThreads(threads())
    if stage.skip:
        return _pass_through(stage)
    reader, labels = ImageReader(stage.images), LabelReader(stage.labels)
    keys = [key for key in sorted(labels.entries) if key in reader.entries]
    if not has_foreground(labels, keys):
        raise UserError(
            "--labels: not one pixel is foreground, so there is nothing to learn. Look at the page of `cluster`; label "
            "a few images and set use_labels, or try another cluster.k"
        )
    seed_everything(stage.seed)
    segmentor, is_new = _start(stage, reader, keys)
    config, where = segmentor.config, device()
    crops = LabelledCrops(
        reader,
        labels,
        keys,
        size=stage.crop,
        model_input=config.input,
        target=load_target(config.architecture.target),
    )
    plan = _plan(stage, is_new, kinds=crops.crops.mixture.kinds)
    trained, history = train(stage, segmentor, crops, plan, where)
    predictor = TiledPredictor.of(trained, where)
    config = config.model_copy(update={"postprocessing": _calibrated(predictor, config, crops, reader)})
    save_model(
        stage.segmentor, trained.state_dict(), config, model_card(stage, plan.steps, plan.rate, config, crops, history)
    )
    metrics = first_and_last_loss(history) | {
        "merge_threshold": config.postprocessing.merge_threshold,
        "high_threshold": config.postprocessing.high_threshold,
    }
    return Result(metrics=metrics, page=make_page(history, predictor, reader, labels, keys))


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train."""

    steps: int
    """Optimiser steps."""
    rate: float
    """Peak learning rate."""
    drop_fraction: float = 0.0
    """Share of a step's trusted pixels, those of the largest loss, whose foreground is not learned."""


def _plan(stage: TrainSegmentor, is_new: bool, *, kinds: float) -> Plan:
    """How to train on so many kinds of images; is_new: whether the segmentor is not one that is trained further."""
    steps = stage.steps * min(kinds, MAX_KINDS)
    fewer = max(1, round(FURTHER * steps))
    if not is_new:
        return Plan(fewer, FURTHER * stage.learning_rate)
    if stage.drop_fraction:
        return Plan(fewer, stage.learning_rate, stage.drop_fraction)
    return Plan(round(steps), stage.learning_rate)


def _start(stage: TrainSegmentor, reader: ImageReader, keys: list[str]) -> tuple[Segmentor, bool]:
    """The network to train, and whether it is new: built on an encoder."""
    model = load_model(stage.model, Encoder, Segmentor)
    if isinstance(model, Segmentor):
        return model, False
    given = model.config.input
    scale = given.um_per_px or median_um_per_px(reader, keys)
    config = SegmentorConfig(
        architecture=SegmentorArchitecture(encoder=model.config.architecture),
        input=given.model_copy(update={"um_per_px": scale}),
    )
    segmentor = Segmentor(config)
    segmentor.encoder.load_state_dict(model.state_dict())
    return segmentor, True


def _calibrated(
    predictor: TiledPredictor, config: SegmentorConfig, crops: LabelledCrops, reader: ImageReader
) -> PostProcessing:
    """Post-processing that fits the trained network."""
    labels, keys = crops.labels, crops.crops.keys
    refinement = labels.info.notes.get(BORDER_REFINEMENT, "none")
    settings = config.postprocessing.model_copy(update={"border_refinement": refinement})
    settings = calibrate_high_threshold(predictor, settings, reader, keys)
    if crops.hand_labelled:
        settings = calibrate_splitting(predictor, settings, reader, labels, crops.hand_labelled)
    return settings


def train(
    stage: TrainSegmentor, segmentor: Segmentor, crops: LabelledCrops, plan: Plan, where: str
) -> tuple[Segmentor, History]:
    """The loop. Returns the moving average of the weights, and (step, loss) of every step."""
    segmentor.to(where).train()
    mean = copy.deepcopy(segmentor)
    learning = stage.encoder_rate > 0
    encoder = segmentor.encoder.requires_grad_(learning).train(learning)
    groups = scale_part(parameter_groups(segmentor, WEIGHT_DECAY), segmentor.encoder, stage.encoder_rate)
    optimiser = torch.optim.AdamW(groups, lr=plan.rate)
    checkpoint = Checkpoint(segmentor=segmentor, mean=mean, optimiser=optimiser)
    first, history = checkpoint.resume()
    if not learning and where == "cpu":
        encoder = packed(encoder)
    progress = Progress("train_segmentor", plan.steps, "steps", first)
    for step in range(first, plan.steps):
        set_learning_rate(optimiser, cosine(step, plan.steps, peak=plan.rate, warmup=max(1, plan.steps // 10)))
        rng = step_generator(stage.seed, step, stage.stream)
        images, planes = crops.batch(stage.batch_size, rng, part(stage.batch_size))
        with torch.autocast("cuda", torch.bfloat16, enabled=where.startswith("cuda")):
            x = to_device(images, where)
            logits = segmentor.decode(x, encoder(x))
        wanted = torch.from_numpy(planes).to(where)
        loss = crops.target.loss(logits.float(), wanted, drop_fraction=plan.drop_fraction)
        watch_loss(loss.item(), step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(segmentor.parameters())
        torch.nn.utils.clip_grad_norm_(segmentor.parameters(), MAX_GRADIENT)
        optimiser.step()
        average(mean, segmentor, min(AVERAGE, (1 + step) / (10 + step)))
        history.append((step, loss.item()))
        progress.update(step + 1, f"loss {history[-1][1]:.4f}")
        checkpoint.save_if_due(step + 1, history)
    progress.finish()
    return mean.eval(), history


def _pass_through(stage: TrainSegmentor) -> Result:
    """Copy the payload of `model`, which must be a segmentor."""
    load_config(stage.model, SegmentorConfig)
    copy_payload(stage.model, stage.segmentor)
    return Result(skipped="the EM loop is over")
