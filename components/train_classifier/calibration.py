"""Calibrate a trained classifier: the prior of the classes, the temperature, and what abstention is decided by."""

import math
from dataclasses import dataclass

import numpy as np

from components.train_classifier.component import TrainClassifier
from shared.models.config import ClassifierPostProcessing

TOKEN_WEIGHTS = (1.0, 0.3, 0.1, 0.0)
"""Factors on the tokens' part of the logits (RESULTS.md, "Constants")."""
MIN_WEIGHING_IMAGES = 50
"""Images from which on that factor is chosen; it is 1 with fewer."""
TEMPERATURES = (0.1, 20.0)
"""Lowest and highest temperature."""


def prior_correction(stage: TrainClassifier, counts: np.ndarray) -> np.ndarray:
    """Return what is added to the logits (K,) so that they follow the frequencies of the training images.

    A network that saw all classes equally often has their frequencies removed from its logits (Menon et al. 2021,
    arXiv:2007.07314). counts: training images (K,) of each class.
    """
    if stage.balance == "none":
        return np.zeros(len(counts), np.float32)
    return np.log(counts * len(counts) / counts.sum()).astype(np.float32)


@dataclass(frozen=True)
class FittedProbabilities:
    """How parts of logits become probabilities."""

    loss: float
    """Mean negative log-likelihood of the images that it is fitted to."""
    token_weight: float
    """Factor on the tokens' part."""
    added: np.ndarray
    """(K,) what is added to the logits."""
    temperature: float


def fit_probabilities(
    of_tokens: np.ndarray, rest: np.ndarray, labels: np.ndarray, correction: np.ndarray, with_stem: bool
) -> FittedProbabilities:
    """Choose what makes parts of logits, each (n, K), likely for labels (n,).

    Chosen are a temperature, the prior correction (K,) or none, and with a stem and MIN_WEIGHING_IMAGES a weight of the
    tokens. From few images of a rare class a network learns too uncertain logits for the correction, which then hides
    the class; from few images in all, tokens often tell less than the stem does.
    """
    found = []
    for weight in TOKEN_WEIGHTS if with_stem and len(labels) >= MIN_WEIGHING_IMAGES else (1.0,):
        for added in (correction, np.zeros_like(correction)):
            logits = weight * of_tokens + rest + added
            temperature = fit_temperature(logits, labels)
            loss = negative_log_likelihood(logits, labels, temperature)
            found.append(FittedProbabilities(loss, weight, added, temperature))
    return min(found, key=lambda one: one.loss)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Temperature with the lowest negative log-likelihood (Guo et al. 2017); logits (n, K), labels (n,).

    The likelihood is convex in 1 / temperature, so that a golden-section search finds the minimum.
    """
    low, high = (math.log(value) for value in TEMPERATURES)
    ratio = (math.sqrt(5) - 1) / 2
    for _ in range(40):
        first, second = high - ratio * (high - low), low + ratio * (high - low)
        losses = (negative_log_likelihood(logits, labels, math.exp(at)) for at in (first, second))
        low, high = (low, second) if next(losses) <= next(losses) else (first, high)
    return math.exp((low + high) / 2)


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Mean negative log-likelihood of the labels (n,) by logits (n, K) at a temperature."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    log_probability = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return float(-log_probability[np.arange(len(labels)), labels].mean())


def with_scores(
    given: ClassifierPostProcessing, probability: np.ndarray, distance: np.ndarray, labels: np.ndarray
) -> ClassifierPostProcessing:
    """Store the scores and distances of calibration images: probability (n, K), distance (n,), labels (n,)."""
    scores = tuple(
        tuple(round(float(value), 6) for value in np.sort(probability[labels == number, number]))
        for number in range(probability.shape[1])
    )
    distances = tuple(round(float(value), 6) for value in np.sort(distance))
    return given.model_copy(update={"calibration": scores, "calibration_distances": distances})
