"""Find boxes in an image with a detector."""

import numpy as np

from components.infer.component import Infer
from shared.artifacts.annotation import Annotation
from shared.models.box_predictor import BoxPredictor
from shared.models.config import DetectorConfig
from shared.models.runtimes.runtime import OpenModel
from shared.system.errors import ImageError


class BoxDetection:
    """The stage's detector with its post-processing."""

    def __init__(self, stage: Infer, model: OpenModel) -> None:
        config = model.config
        assert isinstance(config, DetectorConfig)
        self.predictor = BoxPredictor(model.network, config, batch_size=stage.batch_size)
        self.classes = config.architecture.classes
        threshold = stage.score_threshold
        self.threshold = config.postprocessing.score_threshold if threshold == "auto" else threshold

    def boxes(self, image: np.ndarray) -> list[Annotation]:
        """Find the boxes of an image (H, W, C), those of the highest score first.

        Raises ImageError where the network's output is not finite.
        """
        found = self.predictor(image)
        if not (np.isfinite(found.scores).all() and np.isfinite(found.boxes).all()):
            raise ImageError("the detector's output is not finite")
        return found.above(self.threshold).annotations(self.classes)
