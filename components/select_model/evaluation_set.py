"""The images that segmentors are judged on, and what is found on them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.select_model.component import SelectModel
from components.select_model.criteria import Judgement, judge, with_labels
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import spread
from shared.artifacts.label_set import LabelReader, learned_labels
from shared.imaging.grey import grey
from shared.imaging.tiling import middle
from shared.instances.postprocess import Found, find
from shared.models.segmentor import for_prediction, load_segmentor
from shared.models.tiled_inference import predict_maps
from shared.system.devices import device
from shared.system.errors import UserError
from shared.system.progress import track

LOOK = 1024
"""px; of a larger image its middle is looked at."""


@dataclass(frozen=True)
class Judged:
    """A segmentor's judgement, and what it was made from."""

    judgement: Judgement
    masks: list[np.ndarray]
    """Of each image the foreground (H, W) uint8 {0, 1}."""


class Jury:
    """Some images of the set; labels of them where these may be looked at."""

    def __init__(self, stage: SelectModel, keys: list[str], labelled: bool) -> None:
        self.stage = stage
        reader, truth = ImageReader(stage.images), LabelReader(stage.truth)
        self.images = [middle(reader.read(key), LOOK) for key in keys]
        """Each (H, W, C)."""
        self.truths = [middle(truth.mask(key), LOOK) for key in keys] if labelled else None
        """Each (H, W)."""

    @classmethod
    def of(cls, stage: SelectModel) -> "Jury":
        """On the labelled images that the loop may look at, else on some of those it learns from."""
        reader = ImageReader(stage.images)
        train = reader.keys("train")
        keys = _learned(stage, train) if stage.use_labels else train
        if not keys:
            wanted = "has labels and is of the split train" if stage.use_labels else "is of the split train"
            raise UserError(f"--images: none of the {len(reader)} images {wanted}; add some, or set --use_labels 0")
        return cls(stage, spread(keys, stage.most_images), labelled=stage.use_labels > 0)

    @classmethod
    def elsewhere(cls, stage: SelectModel) -> "Jury | None":
        """On images whose labels the loop does not look at; None where there are none."""
        train = ImageReader(stage.images).keys("train")
        learned = set(_learned(stage, train))
        keys = [key for key in train if key not in learned]
        return cls(stage, spread(keys, stage.most_images), labelled=False) if keys else None

    def __call__(self, model: Path, what: str) -> Judged:
        """Judge a segmentor; what: its name beside the progress."""
        segmentor, config = load_segmentor(model)
        where, stage = device(), self.stage
        segmentor = for_prediction(segmentor, where)
        found: list[Found] = []
        for image in track(self.images, f"gate: {what}", len(self.images)):
            maps = predict_maps(segmentor, config, image, tile=stage.tile, batch_size=stage.batch_size, device=where)
            # without labels borders count, and where they were moved to edges both sides' are equally good
            sharpen = "none" if self.truths is None else config.sharpen
            found.append(find(maps, image, sure=config.sure, sharpen=sharpen))
        masks = [one.mask for one in found]
        judgement = judge(masks, [grey(image) for image in self.images])
        if self.truths is not None:
            judgement = with_labels(judgement, found, self.truths, config.saddle)
        return Judged(judgement, masks)


def _learned(stage: SelectModel, train: list[str]) -> list[str]:
    return learned_labels(LabelReader(stage.truth), set(train), stage.use_labels)
