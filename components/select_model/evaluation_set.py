"""Choose the images that segmentors are assessed on, and assess a segmentor on them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.select_model.component import SelectModel
from components.select_model.criteria import Assessment, add_label_criteria, assess_masks
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import LabelReader
from shared.data.labelled_images import learned_labels
from shared.imaging.grey import grey
from shared.imaging.tiling import centre_crop
from shared.models.load import load_model
from shared.models.segmentor import Segmentor
from shared.models.tiled_inference import TiledPredictor
from shared.system.devices import device
from shared.system.errors import UserError
from shared.system.progress import track
from shared.targets import TARGETS

_MAX_SIDE = 1024
"""px; of larger images the centre is used."""


@dataclass(frozen=True)
class AssessedModel:
    """A segmentor's assessment, and the masks that it is made from."""

    assessment: Assessment
    masks: list[np.ndarray]
    """(H, W) uint8 {0, 1}, the foreground of each image."""


class EvaluationSet:
    """Images to assess on, with labels where these are used."""

    def __init__(self, stage: SelectModel, keys: list[str], labelled: bool) -> None:
        """Read up to `max_images` of the keys."""
        self.stage = stage
        reader, truth = ImageReader(stage.images), LabelReader(stage.truth)
        chosen = evenly_spaced(keys, stage.max_images)
        self.images = [centre_crop(reader.read(key), _MAX_SIDE) for key in chosen]
        """(H, W, C) each."""
        self.truths = [centre_crop(truth.mask(key), _MAX_SIDE) for key in chosen] if labelled else None
        """(H, W) label image each; None: labels are not used."""

    @classmethod
    def of(cls, stage: SelectModel) -> "EvaluationSet":
        """The labelled images if labels are used, else training images. Raises UserError if there are none."""
        reader = ImageReader(stage.images)
        train = reader.keys("train")
        keys = _labelled(stage, train) if stage.use_labels else train
        if not keys:
            wanted = "has labels and is of the split train" if stage.use_labels else "is of the split train"
            raise UserError(f"--images: none of the {len(reader)} images {wanted}; add some, or set --use_labels 0")
        return cls(stage, keys, labelled=stage.use_labels > 0)

    @classmethod
    def unlabelled(cls, stage: SelectModel) -> "EvaluationSet | None":
        """The training images whose labels are not used; None if there are none."""
        train = ImageReader(stage.images).keys("train")
        labelled = set(_labelled(stage, train))
        keys = [key for key in train if key not in labelled]
        return cls(stage, keys, labelled=False) if keys else None

    def assess(self, model: Path, name: str) -> AssessedModel:
        """Assess a segmentor; name: what progress messages call it."""
        segmentor = load_model(model, Segmentor)
        config, stage = segmentor.config, self.stage
        predictor = TiledPredictor.of(segmentor, device(), tile=stage.tile, batch_size=stage.batch_size)
        target = TARGETS[config.architecture.target]
        # without labels the borders are compared; refined borders lie on edges whatever the network predicts
        unrefined = config.postprocessing.model_copy(update={"border_refinement": "none"})
        found, masks = [], []
        for image in track(self.images, f"select_model: {name}", len(self.images)):
            maps = predictor(image)
            if self.truths is None:
                masks.append(target.foreground(maps, image, unrefined))
            else:
                found.append(target.decode(maps, image, config.postprocessing))
                masks.append(found[-1].mask)
        assessment = assess_masks(masks, [grey(image) for image in self.images])
        if self.truths is not None:
            assessment = add_label_criteria(assessment, found, self.truths)
        return AssessedModel(assessment, masks)


def _labelled(stage: SelectModel, train: list[str]) -> list[str]:
    return learned_labels(LabelReader(stage.truth), set(train), stage.use_labels)
