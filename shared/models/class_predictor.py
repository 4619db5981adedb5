"""Predict the class of images: normalise, resize, probabilities and distance from the training images."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shared.imaging.normalise import match_channels
from shared.imaging.resize import resize, resize_into
from shared.models.config import ClassifierConfig, ModelInput
from shared.models.network import Network, as_network

if TYPE_CHECKING:
    from shared.models.classifier import Classifier

BATCH_SIZE = 64
"""Images in a forward pass."""


@dataclass(frozen=True)
class ClassPrediction:
    """What a classifier tells of n images."""

    probability: np.ndarray
    """(n, K) float32, rows that sum to 1."""
    distance: np.ndarray
    """(n,) float32, distance from the training images; see `shared.models.classifier`."""


class ClassPredictor:
    """Images (H, W, C) of any size and dtype -> probabilities of the classes, and distances."""

    def __init__(self, network: Network, config: ClassifierConfig, batch_size: int = BATCH_SIZE) -> None:
        self.network, self.config, self.batch_size = network, config, batch_size

    @classmethod
    def of(cls, classifier: "Classifier", device: str, batch_size: int = BATCH_SIZE) -> "ClassPredictor":
        """Predict with a classifier on a device."""
        from shared.models.classifier import ClassProbabilities, inference_copy

        module = ClassProbabilities(inference_copy(classifier, device))
        return cls(as_network(module, device), classifier.config, batch_size)

    def __call__(self, images: Sequence[np.ndarray]) -> ClassPrediction:
        """Predict images (H, W, C); their sizes may differ."""
        return self.predict_inputs(self._batches(images))

    def predict_inputs(self, batches: Iterable[np.ndarray]) -> ClassPrediction:
        """Predict batches of network input (n, C, S, S) float32, see `network_input`."""
        classes = len(self.config.architecture.classes)
        probability, distance = [np.zeros((0, classes), np.float32)], [np.zeros(0, np.float32)]
        for batch in batches:
            found, far = self.network(batch)
            probability.append(found)
            distance.append(far.reshape(-1))
        return ClassPrediction(np.concatenate(probability), np.concatenate(distance))

    def _batches(self, images: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
        """Network input (n, C, S, S) of `batch_size` images at a time."""
        for first in range(0, len(images), self.batch_size):
            inputs = [network_input(image, self.config.input) for image in images[first : first + self.batch_size]]
            yield np.ascontiguousarray(np.stack(inputs).transpose(0, 3, 1, 2))


def network_input(image: np.ndarray, expected: ModelInput) -> np.ndarray:
    """Normalise an image (H, W, C) and resize it to the model's `crop_px` on both sides: (S, S, channels) float32.

    With `window_px` all images are resized by one factor, except those that are larger than the window.
    """
    if expected.crop_px is None:
        raise ValueError("the config of a classifier states crop_px")
    matched = match_channels(expected.normalisation(image), expected.channels)
    if expected.window_px is None:
        return resize(matched, (expected.crop_px, expected.crop_px))
    return resize_into(matched, expected.crop_px, expected.crop_px / expected.window_px)
