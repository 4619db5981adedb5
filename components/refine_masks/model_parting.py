"""The instances that the segmentor of the previous round finds in the images it learned from."""

from pathlib import Path
from threading import Lock

import numpy as np

from shared.models.config import EncoderConfig, SegmentorConfig
from shared.models.files import load_config


class ModelParting:
    """A segmentor with its target, ready to predict. Threads take turns."""

    def __init__(self, folder: Path) -> None:
        # torch takes seconds to import, and the first round has no segmentor
        from shared.models.load import load_model
        from shared.models.segmentor import Segmentor
        from shared.models.tiled_inference import TiledPredictor
        from shared.system.devices import device
        from shared.targets import TARGETS

        segmentor = load_model(folder, Segmentor)
        self.settings = segmentor.config.postprocessing
        self.predictor = TiledPredictor.of(segmentor, device())
        self.target = TARGETS[segmentor.config.architecture.target]
        self._turn = Lock()

    @classmethod
    def open(cls, folder: Path) -> "ModelParting | None":
        """Open a segmentor; None for an encoder, which finds no instances. Raises ArtifactError for other models."""
        config = load_config(folder, EncoderConfig, SegmentorConfig)
        return cls(folder) if isinstance(config, SegmentorConfig) else None

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Image (H, W, C) -> instances (H, W) of integers >= 0."""
        with self._turn:
            maps = self.predictor(image)
        return self.target.decode(maps, image, self.settings).labels
