"""Apply a network in the place of a model's own to images, and keep its raw outputs and what they mean."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from components.export_model.exportable import Exportable
from shared.imaging.normalise import match_channels
from shared.imaging.tiling import cut_reflected
from shared.instances.detections import Detections
from shared.models.box_predictor import BoxPredictor
from shared.models.class_predictor import ClassPredictor
from shared.models.config import ClassifierConfig, DetectorConfig, SegmentorConfig
from shared.models.network import Network
from shared.models.tiled_inference import TiledPredictor
from shared.system.progress import track
from shared.targets import TARGETS

Outputs = tuple[np.ndarray, ...]


@dataclass
class Predictions:
    """What a network predicts on a set of images."""

    raw: dict[bytes, Outputs] = field(default_factory=dict)
    """Hash of a batch of network input -> the outputs for it."""
    labels: list[np.ndarray] = field(default_factory=list)
    """Of a segmentor: the label image (H, W) of each image."""
    probability: np.ndarray | None = None
    """Of a classifier: (n, classes)."""
    detections: list[Detections] = field(default_factory=list)
    """Of a detector: the objects of each image."""

    def record(self, network: Network) -> Network:
        """Wrap a network so that its outputs are kept."""

        def recorded(images: np.ndarray) -> Outputs:
            outputs = network(images)
            self.raw[hashlib.sha256(images.tobytes()).digest()] = outputs
            return outputs

        return recorded


def predict_images(
    network: Network, subject: Exportable, images: Sequence[np.ndarray], *, tile: int, batch_size: int, name: str = ""
) -> Predictions:
    """Apply a network to images (H, W, C); tile: see TilingOptions.

    name: what progress messages call it; empty: no messages.
    """
    found, config = Predictions(), subject.config
    recorded = found.record(network)
    tracked = iter(track(images, f"export_model: {name}", len(images)) if name else images)
    if isinstance(config, ClassifierConfig):
        found.probability = ClassPredictor(recorded, config, batch_size)(list(tracked)).probability
    elif isinstance(config, DetectorConfig):
        predictor = BoxPredictor(recorded, config, None, batch_size)
        found.detections = [predictor(image) for image in tracked]
    elif isinstance(config, SegmentorConfig):
        maps = TiledPredictor(recorded, config.input, len(config.maps), tile, batch_size)
        target = TARGETS[config.architecture.target]
        found.labels = [target.decode(maps(image), image, config.postprocessing).labels for image in tracked]
    else:
        for image in tracked:
            recorded(_centre_tile(subject, image))
    return found


def network_inputs(
    network: Network, subject: Exportable, images: Sequence[np.ndarray], *, tile: int, batch_size: int, count: int
) -> list[np.ndarray]:
    """Return the first `count` normalised tiles (1, C, H, W) that a model's predictor makes of images (H, W, C)."""
    tiles: list[np.ndarray] = []

    def recorded(batch: np.ndarray) -> Outputs:
        tiles.extend(batch[i : i + 1].copy() for i in range(len(batch)))
        return network(batch)

    per_image = max(1, count // max(len(images), 1))
    for image in track(images, "export_model: tiles", len(images)):
        before = len(tiles)
        predict_images(recorded, subject, [image], tile=tile, batch_size=batch_size)
        chosen = tiles[before:]
        del tiles[before:]
        tiles.extend(chosen[i] for i in np.linspace(0, len(chosen) - 1, min(per_image, len(chosen))).astype(int))
    return tiles[:count]


def _centre_tile(subject: Exportable, image: np.ndarray) -> np.ndarray:
    """Normalised tile (1, C, side, side) from the centre of an image (H, W, C)."""
    expected, side = subject.config.input, subject.metadata.tile
    top, left = ((length - side) // 2 for length in image.shape[:2])
    limits = expected.normalisation.limits(image)
    part = expected.normalisation.apply(cut_reflected(image, top, left, side, side), limits)
    return np.ascontiguousarray(match_channels(part, expected.channels).transpose(2, 0, 1)[None])
