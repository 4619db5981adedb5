"""The training loop of the classifier."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.train_classifier.calibration import fit_probabilities, prior_correction
from components.train_classifier.component import TrainClassifier
from components.train_classifier.labelled_images import LabelledImages, TrainingBatches
from components.train_classifier.splits import LabelledKeys
from shared.models.class_predictor import BATCH_SIZE
from shared.models.classifier import Classifier
from shared.system.collectives import mean, part
from shared.system.progress import Progress
from shared.training.checkpoint import Checkpoint
from shared.training.distributed import average_buffers, data_parallel
from shared.training.history import History
from shared.training.moving_average import update_average
from shared.training.optimiser import layer_decay_groups, parameter_groups
from shared.training.prefetch import prefetch
from shared.training.schedule import cosine, set_learning_rate
from shared.training.tensors import to_device
from shared.training.watchdog import watch_loss

AVERAGE_DECAY = 0.99
"""Decay of the moving average of the weights, once it has warmed up."""
MAX_GRADIENT_NORM = 1.0
"""Norm to which gradients are clipped."""
SCORES = 20
"""How often val is scored in a training."""
PATIENCE = 10
"""Scores without a better one after which training stops."""
SOLVED, SOLVED_SCORES = 0.01, 3
"""Negative log-likelihood from which on nothing is left to learn, and number of such scores after which training stops:
the right class then has a probability of 0.99, in the geometric mean."""


class EarlyStop:
    """The scores of val so far; part of a checkpoint."""

    def __init__(self) -> None:
        self.scores: History = []
        """(step, negative log-likelihood) of every score."""

    def add(self, step: int, score: float) -> bool:
        """Append a score, and return whether it is the best one."""
        self.scores.append((step, score))
        return score <= min(one for _, one in self.scores)

    @property
    def over(self) -> bool:
        """Whether the last PATIENCE scores were no better than the best one before, or nothing is left to learn."""
        values = [value for _, value in self.scores]
        if len(values) >= SOLVED_SCORES and max(values[-SOLVED_SCORES:]) <= SOLVED:
            return True
        return len(values) > PATIENCE and min(values[-PATIENCE:]) > min(values[:-PATIENCE])

    def state_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"scores": [list(one) for one in self.scores]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.scores = [(int(step), float(score)) for step, score in state["scores"]]


def train(
    stage: TrainClassifier, classifier: Classifier, images: LabelledImages, keys: LabelledKeys, where: str
) -> tuple[Classifier, History, History]:
    """Train on device `where`. Returns the classifier to keep, (step, loss) of every step, and the scores of val."""
    classifier.to(where)
    average, best, early = copy.deepcopy(classifier), copy.deepcopy(classifier), EarlyStop()
    optimiser = _optimiser(stage, classifier)
    checkpoint = Checkpoint(classifier=classifier, mean=average, best=best, early=early, optimiser=optimiser)
    first, history = checkpoint.resume()
    network, weights = data_parallel(_Parts(classifier)), _loss_weights(stage, keys).to(where)
    every, stops = max(1, stage.steps // SCORES), stage.early_stop and keys.can_select
    progress = Progress("train_classifier", stage.steps, "steps", first)
    for step, (inputs, labels) in enumerate(_batches(stage, images, keys, first), first):
        set_learning_rate(optimiser, cosine(step, stage.steps, peak=stage.learning_rate, warmup=_warmup(stage)))
        with torch.autocast("cuda", torch.bfloat16, enabled=where.startswith("cuda")):
            parts = network(to_device(inputs, where))
        loss = _loss(stage, parts, torch.from_numpy(labels).to(where), weights)
        watch_loss(loss.item(), step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(classifier.parameters(), MAX_GRADIENT_NORM)
        optimiser.step()
        if classifier.stem is not None:
            average_buffers(classifier.stem)
        update_average(average, classifier, min(AVERAGE_DECAY, (1 + step) / (10 + step)))
        history.append((step, loss.item()))
        progress.update(step + 1, f"loss {history[-1][1]:.4f}")
        if stops and ((step + 1) % every == 0 or step + 1 == stage.steps):
            if early.add(step + 1, score(stage, average, images, keys, where)):
                best.load_state_dict(average.state_dict())
            if early.over:  # before the checkpoint is saved: a training that goes on from it stops here again
                break
        checkpoint.save_if_due(step + 1, history)
    progress.finish()
    return (best if stops else average).eval(), history, early.scores


def _warmup(stage: TrainClassifier) -> int:
    return max(1, stage.steps // 10)


def _optimiser(stage: TrainClassifier, classifier: Classifier) -> torch.optim.Optimizer:
    """AdamW over what is trained; the rest is frozen, and runs in evaluation mode."""
    classifier.train().requires_grad_(stage.tune == "all")
    classifier.head.requires_grad_(True)
    encoder = classifier.encoder
    if stage.tune != "all":
        encoder.eval()
    if stage.tune == "last":
        for block in [*encoder.blocks[-stage.last_blocks :], encoder.norm]:
            block.requires_grad_(True)
    layers: list[nn.Module] = [encoder.patch_embed, *encoder.blocks]
    groups = layer_decay_groups(parameter_groups(classifier, stage.weight_decay), layers, stage.layer_decay)
    return torch.optim.AdamW(groups, lr=stage.learning_rate, fused=True)


def _batches(
    stage: TrainClassifier, images: LabelledImages, keys: LabelledKeys, first: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and classes of this process, step by step."""
    batches, mine = TrainingBatches(stage, images, keys.train, keys.labels(keys.train)), part(stage.batch_size)
    return prefetch(lambda step: batches.batch(step, mine), first, stage.steps)


def _loss_weights(stage: TrainClassifier, keys: LabelledKeys) -> Tensor:
    """Weight (K,) of each class in the loss; the mean over the training images is 1."""
    counts = torch.from_numpy(keys.counts(keys.train)).float()
    if stage.balance != "loss":
        return torch.ones_like(counts)
    return counts.sum() / (len(counts) * counts)


class _Parts(nn.Module):
    """A classifier whose output is the parts of its logits."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images (N, C, S, S) -> parts of the logits (N, K), see `Classifier.logits_of_parts`."""
        return self.classifier.logits_of_parts(x)


def _loss(stage: TrainClassifier, parts: tuple[Tensor, Tensor], labels: Tensor, weights: Tensor) -> Tensor:
    """Cross-entropy over the images of all processes; with a stem, half of it is that of the stem alone.

    The stem learns the classes by itself, and the tokens what it leaves to be learned. Trained as one, the tokens of a
    pretrained encoder soon tell few training images apart, and the stem hardly learns (RESULTS.md, "Constants").
    """
    of_tokens, rest = parts[0].float(), parts[1].float()
    with_stem = stage.stem and stage.tune == "all"
    answers = (of_tokens + rest.detach(), rest) if with_stem else (of_tokens + rest,)
    losses = [F.cross_entropy(one, labels, reduction="none", label_smoothing=stage.label_smoothing) for one in answers]
    return mean(torch.stack(losses).mean(dim=0) * weights[labels])


@torch.no_grad()
def embeddings_and_features(
    classifier: Classifier, images: LabelledImages, keys: list[str], where: str
) -> tuple[Tensor, Tensor]:
    """Embeddings (n, width) of the images, and features (n, D) that distances are measured in; on the device."""
    classifier.eval()
    batches = [torch.from_numpy(batch).to(where) for batch in images.batches(keys, BATCH_SIZE)]
    embedding, features = zip(*map(classifier.embedding_and_features, batches), strict=True)
    return torch.cat(embedding), torch.cat(features)


@torch.no_grad()
def predict_parts(
    classifier: Classifier, images: LabelledImages, keys: list[str], where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Parts of the logits of the images, each (n, K) float32, see `Classifier.logits_of_parts`."""
    training = classifier.training
    classifier.eval()
    batches = images.batches(keys, BATCH_SIZE)
    parts = [classifier.logits_of_parts(torch.from_numpy(batch).to(where)) for batch in batches]
    classifier.train(training)
    of_tokens, rest = (torch.cat(part).float().cpu().numpy() for part in zip(*parts, strict=True))
    return of_tokens, rest


def score(
    stage: TrainClassifier, classifier: Classifier, images: LabelledImages, keys: LabelledKeys, where: str
) -> float:
    """Negative log-likelihood of the selection images by what `fit_probabilities` chooses."""
    parts, labels = predict_parts(classifier, images, keys.selection, where), keys.labels(keys.selection)
    correction = prior_correction(stage, keys.counts(keys.train))
    return fit_probabilities(*parts, labels, correction, classifier.stem is not None).loss
