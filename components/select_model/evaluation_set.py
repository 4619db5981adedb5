"""The images that segmentors are judged on, and what is found on them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.select_model.component import SelectModel
from components.select_model.criteria import Assessment, assess, with_labels
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import LabelReader, learned_labels
from shared.imaging.grey import grey
from shared.imaging.tiling import middle
from shared.models.load import load_model
from shared.models.segmentor import Segmentor
from shared.models.tiled_inference import TiledPredictor
from shared.system.devices import device
from shared.system.errors import UserError
from shared.system.progress import track
from shared.targets import TARGETS

LOOK = 1024
"""px; of a larger image its middle is looked at."""


@dataclass(frozen=True)
class Assessed:
    """A segmentor's assessment, and what it was made from."""

    assessment: Assessment
    masks: list[np.ndarray]
    """Of each image the foreground (H, W) uint8 {0, 1}."""


class EvaluationSet:
    """Some images of the set; labels of them where these may be looked at."""

    def __init__(self, stage: SelectModel, keys: list[str], labelled: bool) -> None:
        self.stage = stage
        reader, truth = ImageReader(stage.images), LabelReader(stage.truth)
        self.images = [middle(reader.read(key), LOOK) for key in keys]
        """Each (H, W, C)."""
        self.truths = [middle(truth.mask(key), LOOK) for key in keys] if labelled else None
        """Each (H, W)."""

    @classmethod
    def of(cls, stage: SelectModel) -> "EvaluationSet":
        """On the labelled images that the loop may look at, else on some of those it learns from."""
        reader = ImageReader(stage.images)
        train = reader.keys("train")
        keys = _learned(stage, train) if stage.use_labels else train
        if not keys:
            wanted = "has labels and is of the split train" if stage.use_labels else "is of the split train"
            raise UserError(f"--images: none of the {len(reader)} images {wanted}; add some, or set --use_labels 0")
        return cls(stage, evenly_spaced(keys, stage.max_images), labelled=stage.use_labels > 0)

    @classmethod
    def elsewhere(cls, stage: SelectModel) -> "EvaluationSet | None":
        """On images whose labels the loop does not look at; None where there are none."""
        train = ImageReader(stage.images).keys("train")
        learned = set(_learned(stage, train))
        keys = [key for key in train if key not in learned]
        return cls(stage, evenly_spaced(keys, stage.max_images), labelled=False) if keys else None

    def __call__(self, model: Path, name: str) -> Assessed:
        """Assess a segmentor; name: what progress calls it."""
        segmentor, stage = load_model(model, Segmentor), self.stage
        config = segmentor.config
        predictor = TiledPredictor.of(segmentor, device(), tile=stage.tile, batch_size=stage.batch_size)
        target = TARGETS[config.architecture.target]
        # without labels borders count, and where they were moved to edges both sides' are equally good
        plain = config.postprocessing.model_copy(update={"border_refinement": "none"})
        found, masks = [], []
        for image in track(self.images, f"select_model: {name}", len(self.images)):
            maps = predictor(image)
            if self.truths is None:
                masks.append(target.foreground(maps, image, plain))
            else:
                found.append(target.decode(maps, image, config.postprocessing))
                masks.append(found[-1].mask)
        assessment = assess(masks, [grey(image) for image in self.images])
        if self.truths is not None:
            assessment = with_labels(assessment, found, self.truths)
        return Assessed(assessment, masks)


def _learned(stage: SelectModel, train: list[str]) -> list[str]:
    return learned_labels(LabelReader(stage.truth), set(train), stage.use_labels)
