"""The training loop of the detector."""

import copy

import torch
from torch import nn

from components.train_detector.batches import Batch, Batches
from components.train_detector.component import TrainDetector
from components.train_detector.objective import Objective
from components.train_detector.pseudo_boxes import mixed, pseudo_boxes, ramp_up
from components.train_detector.training_record import TrainingRecord
from components.train_detector.validation import Validation
from shared.data.box_crops import BoxCrop
from shared.models.detector import Detector
from shared.system.collectives import mean
from shared.system.log import log
from shared.system.progress import Progress
from shared.training.checkpoint import Checkpoint
from shared.training.distributed import data_parallel
from shared.training.history import History
from shared.training.moving_average import update_average
from shared.training.optimiser import layer_decay_groups, parameter_groups, scale_part
from shared.training.prefetch import prefetch
from shared.training.schedule import cosine, set_learning_rate
from shared.training.watchdog import watch_loss

WEIGHT_DECAY = 1e-4
MAX_GRADIENT_NORM = 1.0
"""Norm to which gradients are clipped."""


def train(
    stage: TrainDetector, detector: Detector, batches: Batches, validation: Validation, where: str
) -> tuple[Detector, TrainingRecord, History]:
    """Train on device `where`. Returns the best weights, what was measured, and (step, loss) of every step."""
    detector.to(where).train()
    average = copy.deepcopy(detector).eval()
    record = TrainingRecord(copy.deepcopy(average))
    optimiser = optimiser_of(stage, detector)
    checkpoint = Checkpoint(detector=detector, mean=average, optimiser=optimiser, record=record)
    first, history = checkpoint.resume()
    objective = data_parallel(Objective(detector))
    progress = Progress("train_detector", stage.steps, "steps", first)
    for step, batch in enumerate(prefetch(batches.batch, first, stage.steps), first):
        if record.since_best >= stage.patience:
            log.info("step %d: no better average precision in %d measurements; training ends", step, stage.patience)
            break
        set_learning_rate(optimiser, _rate(stage, step))
        weight = pseudo_weight(stage, batches, step)
        with torch.autocast("cuda", torch.bfloat16, enabled=where.startswith("cuda")):
            taught = _taught(stage, average, batch, where) if weight else []
            loss, parts = objective(batch.labelled, taught, weight)
        value = mean(loss.detach()).item()
        watch_loss(value, step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(detector.parameters(), MAX_GRADIENT_NORM)
        optimiser.step()
        update_average(average, detector, min(stage.average_decay, (1 + step) / (10 + step)))
        history.append((step, value))
        record.add_parts(step, parts)
        if (step + 1) % stage.valid_every == 0 or step + 1 == stage.steps:
            record.measure(step + 1, validation.metrics(average), average)
        progress.update(step + 1, f"loss {value:.2f}, {record}")
        checkpoint.save_if_due(step + 1, history)
    progress.finish(str(record))
    return record.best.eval(), record, history


def _rate(stage: TrainDetector, step: int) -> float:
    """Learning rate of a step."""
    warmup = min(stage.warmup_steps, max(1, stage.steps // 5))
    if stage.schedule == "flat":
        return stage.learning_rate * min(1.0, (step + 1) / warmup)
    return cosine(step, stage.steps, peak=stage.learning_rate, warmup=warmup)


def optimiser_of(stage: TrainDetector, detector: Detector) -> torch.optim.AdamW:
    """Return AdamW over what is trained; the encoder has a lower rate, or is frozen."""
    backbone, encoder = detector.backbone, detector.encoder
    part: nn.Module = backbone if encoder is None else encoder
    if stage.encoder_rate == 0:
        part.requires_grad_(False)
    groups = parameter_groups(detector, WEIGHT_DECAY)
    if encoder is not None:
        groups = layer_decay_groups(groups, [encoder.patch_embed, *encoder.blocks], stage.layer_decay)
    groups = scale_part(groups, part, stage.encoder_rate)
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=stage.learning_rate, fused=True)


def pseudo_weight(stage: TrainDetector, batches: Batches, step: int) -> float:
    """Weight of the loss on unlabelled crops; 0 in the last steps, which correct what wrong pseudo-boxes taught."""
    if not batches.unlabelled or batches.plain(step):
        return 0.0
    return stage.unlabelled_weight * ramp_up(step, stage.ramp_up_epochs * batches.epoch)


def _taught(stage: TrainDetector, teacher: Detector, batch: Batch, where: str) -> list[BoxCrop]:
    """The unlabelled crops as the student learns them: strongly augmented, with pseudo-boxes, mixed."""
    queries = teacher.config.architecture.queries
    most = queries if stage.max_pseudo_boxes == "auto" else min(queries, stage.max_pseudo_boxes)
    weak = [pixels for pixels, _ in batch.weak]
    boxes = pseudo_boxes(teacher, weak, where, stage.pseudo_threshold, most)
    return mixed(list(zip(batch.strong, boxes, strict=True)))
