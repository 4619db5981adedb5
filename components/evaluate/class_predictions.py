"""Get the classes to score from a classifier, or from a LabelSet that `infer` wrote."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.evaluate.component import Evaluate
from shared.artifacts.annotation import ImageClass
from shared.artifacts.image_set import ImageReader
from shared.artifacts.label_set import LabelReader
from shared.models.config import ClassifierConfig
from shared.system.devices import device, threads
from shared.system.errors import ArtifactError
from shared.system.parallel import in_order
from shared.system.progress import track

_BATCH = 64
"""Images that are in memory at a time."""


@dataclass(frozen=True)
class PredictedClasses:
    """Predictions of n images."""

    names: list[str]
    """Classes, in the order of the columns; with two, the second one is positive."""
    probability: np.ndarray
    """(n, K) float64, rows that sum to 1. Where no probabilities are known, 1 for the class named."""
    known: bool
    """Whether probabilities are known."""
    images: list[ImageClass]
    """The same, as a LabelSet holds them."""


def classifier_predictions(stage: Evaluate, model: Path, images: ImageReader, keys: list[str]) -> PredictedClasses:
    """Predict images with a classifier."""
    from shared.models.class_predictor import ClassPredictor
    from shared.models.runtimes.runtime import open_model

    classifier = open_model(model, runtime=stage.runtime, device=device())
    config = classifier.config
    assert isinstance(config, ClassifierConfig)
    names = list(config.architecture.classes)
    predictor = ClassPredictor(classifier.network, config, _BATCH)
    found = [predictor(batch) for batch in _batches(images, keys)]
    probability = np.concatenate([batch.probability for batch in found]).astype(np.float64)
    distance = np.concatenate([batch.distance for batch in found])
    rows = zip(probability.tolist(), distance.tolist(), strict=True)
    one = [_image_class(names, chances, far) for chances, far in rows]
    return PredictedClasses(names, probability, True, one)


def _batches(images: ImageReader, keys: list[str]) -> Iterator[list[np.ndarray]]:
    """Read images ahead, in batches."""
    with ThreadPoolExecutor(threads()) as pool:
        batch: list[np.ndarray] = []
        read = in_order(pool, images.read, keys, lambda key: 8 * images.pixel_count(key))
        for image in track(read, "classify", len(keys)):
            batch.append(image)
            if len(batch) == _BATCH:
                yield batch
                batch = []
        if batch:
            yield batch


def _image_class(names: list[str], chances: list[float], distance: float) -> ImageClass:
    best = int(np.argmax(chances))
    return ImageClass(names[best], chances[best], dict(zip(names, chances, strict=True)), distance=distance)


def stored_classes(predictions: LabelReader, keys: list[str]) -> PredictedClasses:
    """Read the classes of a LabelSet. Raises ArtifactError where an image has none."""
    classes = predictions.image_classes()
    for key in keys:
        if key not in classes:
            raise ArtifactError(
                f"--predictions: {predictions.folder}: no class of {key!r}; run infer on the images given here"
            )
    found = [classes[key] for key in keys]
    names = sorted({name for item in found for name in (item.name, *item.probabilities)})
    known = all(item.probabilities or item.score is not None for item in found)
    rows = [_chances(item, names) for item in found]
    return PredictedClasses(names, np.array(rows).reshape(len(found), len(names)), known, found)


def _chances(item: ImageClass, names: list[str]) -> list[float]:
    """Probability of each class; what is left of a score is shared by the other classes."""
    if item.probabilities:
        return [float(item.probabilities.get(name, 0.0)) for name in names]
    score = 1.0 if item.score is None else item.score
    rest = (1 - score) / max(1, len(names) - 1)
    return [score if name == item.name else rest for name in names]
