"""Does an exported form do as the original does? Compared on real images, down to the cells."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from components.export_model.exportable import Exportable
from shared.imaging.normalise import match_channels
from shared.imaging.tiling import cut
from shared.metrics.tally import Tally, tally
from shared.models.network import Network
from shared.models.tiled_inference import TiledPredictor
from shared.system.progress import track
from shared.targets import TARGETS


@dataclass
class Output:
    """What one form says of the images."""

    arrays: list[np.ndarray] = field(default_factory=list)
    """Of each image: maps (M, H, W) in [0, 1], or features (width, h, w) in their standard deviations; float32."""
    labels: list[np.ndarray] = field(default_factory=list)
    """Label images (H, W); none of an encoder."""
    seconds: float = 0.0
    """In the network alone."""


@dataclass(frozen=True)
class Agreement:
    """How close a form's output is to the original's."""

    max_difference: float
    """Of the arrays, anywhere; nan and infinity of either count as infinity."""
    dice: float | None = None
    """Of the foreground, pixels pooled; None of an encoder. 1 where neither finds any."""
    f1: float | None = None
    """Of the cells at IoU 0.5, pooled; None of an encoder. 1 where neither finds any."""


def output_of(
    network: Network, subject: Exportable, images: Sequence[np.ndarray], *, tile: int, batch_size: int, name: str
) -> Output:
    """What a form says of images (H, W, C)."""
    out = Output()

    def timed(tiles: np.ndarray) -> np.ndarray:
        started = time.monotonic()
        result = network(tiles)
        out.seconds += time.monotonic() - started
        return result

    for image in track(images, f"export_model: {name}", len(images)):
        if subject.segmentor is None:
            out.arrays.append(_features(timed, subject, image, tile))
            continue
        maps = _predictor(timed, subject, tile, batch_size)(image)
        out.arrays.append(maps.copy())
        target = TARGETS[subject.segmentor.architecture.target]
        out.labels.append(target.decode(maps, image, subject.segmentor.postprocessing).labels)
    return out


def agreement(form: Output, original: Output) -> Agreement:
    """How close `form` is to `original`, both of the same images."""
    differences = [
        float(np.abs(a - b).max()) if np.isfinite(a).all() and np.isfinite(b).all() else np.inf
        for a, b in zip(form.arrays, original.arrays, strict=True)
    ]
    if not original.labels:
        return Agreement(max(differences))
    total = sum((tally(true, found) for true, found in zip(original.labels, form.labels, strict=True)), Tally())
    if not (total.true or total.predicted):
        return Agreement(max(differences), 1.0, 1.0)
    metrics = total.metrics()
    return Agreement(max(differences), metrics["dice"], metrics["f1"])


def _features(network: Network, subject: Exportable, image: np.ndarray, tile: int) -> np.ndarray:
    """Features of the middle of an image, in their standard deviations: (width, h, w)."""
    normalisation = subject.config.input.normalisation
    side = -(-tile * subject.config.input.downsample // subject.multiple) * subject.multiple
    top, left = ((length - side) // 2 for length in image.shape[:2])
    part = normalisation.apply(cut(image, top, left, side, side), normalisation.limits(image))
    part = match_channels(part, subject.config.input.channels).transpose(2, 0, 1)
    features = network(np.ascontiguousarray(part[None]))[0]
    return features / max(float(features.std()), 1e-6)


def _predictor(network: Network, subject: Exportable, tile: int, batch_size: int) -> TiledPredictor:
    assert subject.segmentor is not None
    return TiledPredictor(network, subject.config.input, len(subject.segmentor.maps), tile, batch_size)
