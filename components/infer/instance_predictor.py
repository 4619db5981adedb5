"""Predict the instances of an image with a segmentor."""

import tempfile

import numpy as np

from components.infer.component import Infer
from shared.artifacts.image_set import ImageEntry
from shared.artifacts.postprocessing import resolve
from shared.exporters.exporter import PredictedImage
from shared.imaging.region_properties import mean_over_objects
from shared.models.load import load_model
from shared.models.segmentor import Segmentor
from shared.models.tiled_inference import TiledPredictor, predict_at_scale
from shared.system.devices import device
from shared.targets import TARGETS


class InstancePredictor:
    """The stage's segmentor with its post-processing. The two steps may run in different threads."""

    def __init__(self, stage: Infer) -> None:
        """Load the model. Raises ArtifactError if it is not a segmentor."""
        segmentor = load_model(stage.segmentor, Segmentor)
        self.stage = stage
        self.predictor = TiledPredictor.of(segmentor, device(), tile=stage.tile, batch_size=stage.batch_size)
        self.target = TARGETS[segmentor.config.architecture.target]
        self.settings = resolve(stage, segmentor.config.postprocessing)

    def maps(self, image: np.ndarray, um_per_px: float | None) -> np.ndarray:
        """Apply the network to an image (H, W, C): maps (M, H, W) float32 in [0, 1].

        The maps of an image with a side longer than `block` are a memory map of a file without a name.
        """
        if self.stage.rescale == "um_per_px":
            return predict_at_scale(self.predictor, image, um_per_px)
        shape = self.predictor.maps, *image.shape[:2]
        if max(image.shape[:2]) <= self.stage.block:
            maps = np.empty(shape, np.float32)
        else:
            with tempfile.TemporaryFile(dir=self.stage.files.parent) as file:  # the mapping outlives the file object
                maps = np.memmap(file, np.float32, "w+", shape=shape)
        self.predictor.predict_into(maps, image)
        return maps

    def instances(self, number: int, entry: ImageEntry, image: np.ndarray, maps: np.ndarray) -> PredictedImage:
        """Turn the maps of an image into instances with scores; overwrites the maps."""
        probability = np.empty(maps.shape[1:], np.uint8)  # a copy: decoding overwrites the map
        np.rint(maps[0] * 255, out=probability, casting="unsafe")
        found = self.target.decode(maps, image, self.settings, rows=self.stage.block)
        scores = mean_over_objects(found.labels, probability) / 255
        return PredictedImage(number, entry, image, found.mask, found.labels, scores)
