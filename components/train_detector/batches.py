"""Draw the batches of a step: crops with boxes, augmented. What a step draws follows from (seed, step) alone."""

from dataclasses import dataclass

import numpy as np

from components.train_detector.component import TrainDetector
from shared.data.augmentation import augment_intensity, jitter_intensity
from shared.data.box_crops import BoxCrop, BoxCrops, mixup
from shared.system.collectives import part
from shared.training.seeds import step_generator

PLAIN_SHARE = 0.2
"""Last share of the steps, without mosaic and mixup, whose crops look unlike images (Ge et al. 2021, YOLOX,
arXiv:2107.08430, section 2.1), and without unlabelled crops, whose pseudo-boxes are partly wrong."""
LABELLED, UNLABELLED = 0, 1
"""Random streams."""
_MOSAIC_ZOOM = 0.8
"""Factor on the size of objects in a mosaic, whose parts would show few objects whole."""


@dataclass(frozen=True)
class Batch:
    """What one process computes in a step."""

    labelled: list[BoxCrop]
    """Crops with their boxes."""
    weak: list[BoxCrop]
    """Crops of unlabelled images as the teacher sees them, without boxes."""
    strong: list[np.ndarray]
    """The same crops as the student sees them."""


class Batches:
    """The batches of a training."""

    def __init__(self, stage: TrainDetector, labelled: BoxCrops, unlabelled: list[BoxCrops]) -> None:
        """unlabelled: crops of each set of images without labels; none: supervised training alone."""
        self.stage, self.labelled, self.unlabelled = stage, labelled, unlabelled

    @property
    def epoch(self) -> float:
        """Steps that draw as many crops as there are images, with labels and without."""
        if not self.unlabelled:
            return len(self.labelled.keys) / self.stage.batch_size
        images = len(self.labelled.keys) + sum(len(crops.keys) for crops in self.unlabelled)
        return images / (self.stage.batch_size + self.stage.unlabelled_batch)

    def plain(self, step: int) -> bool:
        """Whether a step has labelled crops alone, without mosaic and mixup."""
        return step >= (1 - PLAIN_SHARE) * self.stage.steps

    def batch(self, step: int) -> Batch:
        """Draw the batch of a step, and cut this process's part of it."""
        rng = step_generator(self.stage.seed, step, LABELLED)
        seeds = rng.integers(2**63, size=self.stage.batch_size)  # so that a crop's numbers do not depend on `part`
        plain = self.plain(step)
        labelled = [self._labelled(np.random.default_rng(seed), plain) for seed in seeds[part(len(seeds))]]
        if not self.unlabelled or plain:
            return Batch(labelled, [], [])
        seeds = step_generator(self.stage.seed, step, UNLABELLED).integers(2**63, size=self.stage.unlabelled_batch)
        weak, strong = [], []
        for seed in seeds[part(len(seeds))]:
            rng = np.random.default_rng(seed)
            crops = self._any_unlabelled(rng)
            crop = crops.cut(crops.windows(1, rng)[0])
            weak.append(crop)
            strong.append(augment_intensity(crop[0], rng))
        return Batch(labelled, weak, strong)

    def _any_unlabelled(self, rng: np.random.Generator) -> BoxCrops:
        """One of the sets without labels, by their numbers of images."""
        counts = np.array([len(crops.keys) for crops in self.unlabelled])
        return self.unlabelled[int(rng.choice(len(counts), p=counts / counts.sum()))]

    def _labelled(self, rng: np.random.Generator, plain: bool) -> BoxCrop:
        mosaic, mixes = rng.random(2)
        pixels, boxes = self._crop(rng, not plain and mosaic < self.stage.mosaic)
        if not plain and mixes < self.stage.mixup:
            pixels, boxes = mixup((pixels, boxes), self._crop(rng, False))
        return jitter_intensity(pixels, rng), boxes

    def _crop(self, rng: np.random.Generator, mosaic: bool) -> BoxCrop:
        crops = self.labelled
        return crops.mosaic(rng, _MOSAIC_ZOOM) if mosaic else crops.cut(crops.windows(1, rng)[0])
