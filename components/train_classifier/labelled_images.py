"""Provide labelled images as network input, plain or augmented."""

from collections.abc import Iterator

import numpy as np

from components.train_classifier.component import TrainClassifier
from shared.artifacts.image_set import ImageReader
from shared.data.array_cache import ArrayCache
from shared.data.augmentation import blur, jitter_intensity, rotate_square
from shared.models.class_predictor import network_input
from shared.models.config import ModelInput
from shared.training.seeds import step_generator

CACHE_BYTES = 2**30
"""Bytes of network input kept in memory."""
MAX_SHIFT, MAX_SCALE = 0.06, 1.15
"""Largest shift as a share of the side, and largest factor of the scale, in augmentation."""
EXACT_SHARE = 0.5
"""Share of the images that are turned by 90 degrees alone, which keeps their pixels: resampling blurs fine details."""
INTENSITY = 0.1
"""Strength of `jitter_intensity`."""
BLUR_SHARE, MAX_SIGMA = 0.1, 1.0
"""Share of the images that are blurred, and largest deviation, px."""


class LabelledImages:
    """Network input of labelled images by key, and the batches of a training."""

    def __init__(self, reader: ImageReader, model_input: ModelInput, cache_bytes: int = CACHE_BYTES) -> None:
        self.reader, self.input = reader, model_input
        self._cache: ArrayCache[np.ndarray] = ArrayCache(cache_bytes, lambda image: image.nbytes)

    def image(self, key: str) -> np.ndarray:
        """Return an image as the network sees it: (S, S, C) float32."""
        return self._cache.get(key, lambda: network_input(self.reader.read(key), self.input))

    def batches(self, keys: list[str], size: int) -> Iterator[np.ndarray]:
        """Yield the images of the keys, in order: (n, C, S, S) float32."""
        for first in range(0, len(keys), size):
            images = np.stack([self.image(key) for key in keys[first : first + size]])
            yield np.ascontiguousarray(images.transpose(0, 3, 1, 2))


class TrainingBatches:
    """The batches of a training: what a step gets follows from seed and step alone."""

    def __init__(self, stage: TrainClassifier, images: LabelledImages, keys: list[str], labels: np.ndarray) -> None:
        """labels: (n,) int64, the class of each key."""
        self.stage, self.images, self.keys, self.labels = stage, images, keys, labels
        counts = np.bincount(labels)
        weight = 1 / counts[labels] if stage.balance == "sampling" else np.ones(len(labels))
        self.probabilities = weight / weight.sum()

    def batch(self, step: int, part: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Draw the images of a step, and make `part` of them: (n, S, S, C) float32 and classes (n,) int64."""
        rng = step_generator(self.stage.seed, step)
        chosen = rng.choice(len(self.keys), self.stage.batch_size, p=self.probabilities)[part]
        own = rng.spawn(self.stage.batch_size)[part]
        images = [
            augment(self.images.image(self.keys[i]), generator, self.stage.augment)
            for i, generator in zip(chosen, own, strict=True)
        ]
        return np.stack(images), self.labels[chosen]


def augment(image: np.ndarray, rng: np.random.Generator, how: str) -> np.ndarray:
    """Augment an image (S, S, C) float32, see `TrainClassifier.augment`: (S, S, C)."""
    if how == "none":
        return image
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    if how == "flips" or rng.random() < EXACT_SHARE:
        image = np.rot90(image, turns)
        image = image[:, ::-1] if flip else image
    else:
        image = _warp(image, rng, flip=flip)
    if how == "flips":
        return image
    image = jitter_intensity(image, rng, INTENSITY)
    blurs, sigma = rng.random(2)
    return blur(image, 0.3 + (MAX_SIGMA - 0.3) * sigma) if blurs < BLUR_SHARE else image


def _warp(image: np.ndarray, rng: np.random.Generator, *, flip: bool) -> np.ndarray:
    """Turn by any angle, shift and scale."""
    size = len(image)
    y, x = (size - 1) / 2 + rng.uniform(-MAX_SHIFT, MAX_SHIFT, 2) * size
    side = size * MAX_SCALE ** rng.uniform(-1, 1)
    return rotate_square(image, size, centre=(y, x), side=side, degrees=rng.uniform(0, 360), flip=flip)
