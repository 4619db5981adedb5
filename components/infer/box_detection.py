"""Find boxes in an image with a detector."""

import numpy as np

from components.infer.component import Infer
from components.infer.finite_network import finite_network
from shared.artifacts.annotation import Annotation
from shared.models.box_predictor import BoxPredictor
from shared.models.config import DetectorConfig
from shared.models.runtimes.runtime import OpenModel


class BoxDetection:
    """The stage's detector with its post-processing."""

    def __init__(self, stage: Infer, model: OpenModel) -> None:
        config = model.config
        assert isinstance(config, DetectorConfig)
        self.predictor = BoxPredictor(finite_network(model), config, batch_size=stage.batch_size)
        self.rescale = stage.rescale == "um_per_px"
        self.classes = config.architecture.classes
        threshold = stage.score_threshold
        self.threshold = config.postprocessing.score_threshold if threshold == "auto" else threshold

    def boxes(self, image: np.ndarray, um_per_px: float | None) -> tuple[list[Annotation], int]:
        """Find the boxes of an image (H, W, C), those of the highest score first.

        Also returns the number of tiles in which all queries were used, so that more objects may be there. Raises
        ImageError where the network's output is not finite.
        """
        found = self.predictor(image, um_per_px if self.rescale else None)
        return found.above(self.threshold).annotations(self.classes), found.full_tiles
