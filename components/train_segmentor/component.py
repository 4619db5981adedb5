"""Declaration of `train_segmentor`."""

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from shared.artifacts.kinds import ImageSet, LabelSet, Model
from shared.stage.declaration import In, Out, Stage


class TrainSegmentor(Stage):
    """Train a segmentor on label images: hand-labelled masks, or pseudo-masks with their confidence.

    In the EM loop this is the M-step.
    """

    image: ClassVar[str] = "torch"

    images: In[ImageSet]
    """Training images: those that have a label image are used; where all labels are made by hand, those of the split
    train, and those of val to choose the post-processing."""
    labels: In[LabelSet]
    """Instances or foreground masks of the images, optionally with the confidence of each pixel."""
    model: In[Model]
    """Encoder to start from, or segmentor to train further."""
    segmentor: Out[Model]
    """The segmentor, with its encoder and calibrated post-processing."""
    target: Literal["auto", "foreground_distance", "distance", "flow", "distance_flow"] = "auto"
    """What the network learns from the labels. foreground_distance: the foreground, and the distance to the border of
    each instance, by which a watershed parts them. distance: that distance alone (SAMCell, DINOCell). flow: the
    foreground, and vectors that lead to the middle of each instance (Cellpose); takes half as many steps again.
    distance_flow: the same with vectors that lead to the middle line, for long cells (Omnipose). auto: a segmentor
    keeps its own; else flow where the borders of the pseudo-masks were found by watershed, and foreground_distance
    where they were not. A segmentor of another target is trained further with a new last layer."""
    steps: PositiveInt = 400
    """Optimiser steps for each kind of images in the set, up to four kinds. Half as many are taken to train a segmentor
    further, and on noisy labels (`drop_fraction` above 0)."""
    batch_size: PositiveInt = 12
    """Crops per step."""
    crop: int = Field(128, ge=32, multiple_of=16)
    """Side of a training crop, px."""
    learning_rate: float = Field(3e-3, gt=0)
    """Peak learning rate; half of it is used to train a segmentor further."""
    encoder_rate: float = Field(0.0, ge=0, le=1)
    """Learning rate of the encoder as a share of `learning_rate`. 0 freezes the encoder, which halves the time of a
    step."""
    drop_fraction: float = Field(0.0, ge=0, lt=0.5)
    """For labels with errors: share of a step's pixels, those of the largest loss, whose foreground is not learned.
    Ignored where a segmentor is trained further."""
    seed: NonNegativeInt = 0
    """Seed of the new layers' weights and of the crops."""
    stream: NonNegativeInt = 0
    """Random stream that the crops are drawn from: with the same seed, each stream gives other crops. The EM loop uses
    the number of the round."""
    skip: bool = False
    """Copy `model`, which must be a segmentor, without training: the EM loop has ended."""

    def max_processes(self) -> int:
        """Return the crops of a batch, or 1 where nothing is trained."""
        return 1 if self.skip else self.batch_size
