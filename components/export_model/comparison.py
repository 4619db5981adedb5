"""Compare what two networks predict on real images, down to the instances."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from components.export_model.exportable import Exportable
from shared.imaging.normalise import match_channels
from shared.imaging.tiling import cut_reflected
from shared.metrics.tally import Tally, tally
from shared.models.network import Network
from shared.models.tiled_inference import TiledPredictor
from shared.system.progress import track
from shared.targets import TARGETS


@dataclass
class ModelOutput:
    """What a network predicts on a set of images."""

    arrays: list[np.ndarray] = field(default_factory=list)
    """float32, of each image: maps (M, H, W) in [0, 1], or features (width, h, w) in standard deviations."""
    labels: list[np.ndarray] = field(default_factory=list)
    """Label image (H, W) of each image; empty for an encoder."""
    seconds: float = 0.0
    """Time in the network alone."""


@dataclass(frozen=True)
class OutputDifference:
    """How much the outputs of two networks differ."""

    max_difference: float
    """Largest difference of any array element; infinite if an element is not finite."""
    dice: float | None = None
    """Dice of the foregrounds, pixels pooled; 1 if both are empty. None for an encoder."""
    f1: float | None = None
    """F1 of the instances at IoU 0.5, pooled; 1 if there are none in either. None for an encoder."""


def predict_images(
    network: Network, subject: Exportable, images: Sequence[np.ndarray], *, tile: int, batch_size: int, name: str
) -> ModelOutput:
    """Apply a network in the place of the model's own to images (H, W, C); name: what progress messages call it."""
    out = ModelOutput()

    def timed(tiles: np.ndarray) -> tuple[np.ndarray, ...]:
        started = time.monotonic()
        result = network(tiles)
        out.seconds += time.monotonic() - started
        return result

    for image in track(images, f"export_model: {name}", len(images)):
        segmentor = subject.segmentor
        if segmentor is None:
            out.arrays.append(_features(timed, subject, image, tile))
            continue
        maps = TiledPredictor(timed, segmentor.input, len(segmentor.maps), tile, batch_size)(image)
        out.arrays.append(maps.copy())
        target = TARGETS[segmentor.architecture.target]
        out.labels.append(target.decode(maps, image, segmentor.postprocessing).labels)
    return out


def compare_outputs(output: ModelOutput, reference: ModelOutput) -> OutputDifference:
    """Compare two outputs on the same images; the instances of `reference` are the truth."""
    differences = [
        float(np.abs(a - b).max()) if np.isfinite(a).all() and np.isfinite(b).all() else np.inf
        for a, b in zip(output.arrays, reference.arrays, strict=True)
    ]
    if not reference.labels:
        return OutputDifference(max(differences))
    total = sum((tally(true, found) for true, found in zip(reference.labels, output.labels, strict=True)), Tally())
    if not (total.true or total.predicted):
        return OutputDifference(max(differences), 1.0, 1.0)
    metrics = total.metrics()
    return OutputDifference(max(differences), metrics["dice"], metrics["f1"])


def _features(network: Network, subject: Exportable, image: np.ndarray, tile: int) -> np.ndarray:
    """Features (width, h, w) of the centre of an image, divided by their standard deviation."""
    normalisation = subject.config.input.normalisation
    side = -(-tile * subject.config.input.downsample // subject.multiple) * subject.multiple
    top, left = ((length - side) // 2 for length in image.shape[:2])
    part = normalisation.apply(cut_reflected(image, top, left, side, side), normalisation.limits(image))
    part = match_channels(part, subject.config.input.channels).transpose(2, 0, 1)
    features = network(np.ascontiguousarray(part[None]))[0][0]
    return features / max(float(features.std()), 1e-6)
