"""Predict the instances of an image with a segmentor."""

import tempfile

import numpy as np

from components.infer.component import Infer
from components.infer.finite_network import finite_network
from components.infer.stored_size import reduce_instances
from shared.artifacts.image_set import ImageEntry
from shared.artifacts.postprocessing import resolve
from shared.assessment.estimated_dice import estimate_dice
from shared.exporters.exporter import Instances
from shared.imaging.grey import grey
from shared.imaging.region_properties import mean_over_objects
from shared.imaging.resize import enlarge
from shared.models.config import SegmentorConfig
from shared.models.runtimes.runtime import OpenModel
from shared.models.tiled_inference import TiledPredictor, predict_at_scale
from shared.proposals.outsized import flatten, is_of_size, is_outsized, stands_out
from shared.targets import TARGETS


class InstancePredictor:
    """The stage's segmentor with its post-processing. The two steps may run in different threads."""

    def __init__(self, stage: Infer, model: OpenModel) -> None:
        config = model.config
        assert isinstance(config, SegmentorConfig)
        self.stage = stage
        network = finite_network(model)
        self.predictor = TiledPredictor(network, config.input, len(config.maps), stage.tile, stage.batch_size)
        self.target = TARGETS[config.architecture.target]
        self.settings = resolve(stage, config.postprocessing)

    def magnification(self, entry: ImageEntry) -> int:
        """Factor by which an image, as it is read, is enlarged for the model."""
        return max(1, self.predictor.input.magnification // entry.magnification)

    def is_one_tile(self, entry: ImageEntry) -> bool:
        """Say whether an image is predicted as a single tile, without rescaling."""
        scaled = self.stage.rescale == "um_per_px" and entry.um_per_px and self.predictor.input.um_per_px
        if scaled or self.magnification(entry) > 1:
            return False
        return self.predictor.is_one_tile((entry.height, entry.width))

    def maps(self, image: np.ndarray, entry: ImageEntry) -> np.ndarray:
        """Apply the network to an image (H, W, C): maps (M, H, W) float32 in [0, 1], of the enlarged image.

        Where the objects are far larger than in the training images, as an embryo that glows as a whole, and smaller
        ones stand out within them, the maps are those of the image without its glow (`shared.proposals.outsized`).
        The maps of an image with a side longer than `block` are a memory map of a file without a name.
        """
        factor = self.magnification(entry)
        image, um_per_px = enlarge(image, factor), entry.enlarged(factor).um_per_px
        maps = self._maps(image, um_per_px)
        diameter = self._object_diameter(um_per_px)
        if diameter is None or max(image.shape[:2]) > self.stage.block:
            return maps
        mask = self._mask(maps)
        if not is_outsized(mask, diameter):
            return maps
        again = self._maps(flatten(image, diameter), um_per_px)
        found = self._mask(again)
        return again if is_of_size(found, diameter) and stands_out(grey(image), mask, found) else maps

    def _mask(self, maps: np.ndarray) -> np.ndarray:
        return (self.target.probability(maps, self.settings) >= self.settings.foreground_threshold).astype(np.uint8)

    def _object_diameter(self, um_per_px: float | None) -> float | None:
        """Typical diameter in the training images, px of an image."""
        known = self.predictor.input
        if known.object_px and self.stage.rescale == "um_per_px" and um_per_px and known.um_per_px:
            return known.object_px * known.um_per_px / um_per_px
        return known.object_px

    def _maps(self, image: np.ndarray, um_per_px: float | None) -> np.ndarray:
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

    def instances(self, image: np.ndarray, entry: ImageEntry, maps: np.ndarray) -> Instances:
        """Turn the maps of an image (H, W, C) into instances (H, W) with scores; overwrites the maps."""
        factor = self.magnification(entry)
        return reduce_instances(self._instances(enlarge(image, factor), maps), factor)

    def _instances(self, image: np.ndarray, maps: np.ndarray) -> Instances:
        probability = np.empty(maps.shape[1:], np.uint8)  # a copy: decoding overwrites the map
        np.rint(self.target.probability(maps, self.settings) * 255, out=probability, casting="unsafe")
        found = self.target.decode(maps, image, self.settings, rows=self.stage.block)
        scores = mean_over_objects(found.labels, probability) / 255
        return Instances(found.mask, found.labels, scores, estimate_dice(image, found.labels))
