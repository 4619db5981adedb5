"""Declaration of `train_segmentor`."""

from typing import ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt

from shared.artifacts.kinds import ImageSet, LabelSet, Model
from shared.stage.declaration import In, Out, Stage


class TrainSegmentor(Stage):
    """Train a segmentor on label images: masks that a person drew, or pseudo-masks with their confidence.

    In the EM loop this is the M-step.
    """

    image: ClassVar[str] = "torch"

    images: In[ImageSet]
    """Images to train on: those that have a label image."""
    labels: In[LabelSet]
    """Their instances or foreground masks, and where it is known the confidence of each pixel."""
    model: In[Model]
    """An encoder to build on, or a segmentor to train further."""
    segmentor: Out[Model]
    """The segmentor. It holds its encoder, and the post-processing that calibration found."""
    steps: PositiveInt = 400
    """Optimiser steps for each kind of images in the set, up to four. Half as many are taken to train a segmentor
    further, and on noisy labels (`drop_fraction` above 0)."""
    batch_size: PositiveInt = 12
    """Crops a step."""
    crop: int = Field(128, ge=32, multiple_of=16)
    """px on the side of a training crop."""
    learning_rate: float = Field(3e-3, gt=0)
    """Peak learning rate; half of it is used to train a segmentor further."""
    encoder_rate: float = Field(0.0, ge=0, le=1)
    """Learning rate of the encoder as a share of `learning_rate`. 0 freezes it, which halves the time of a step."""
    drop_fraction: float = Field(0.0, ge=0, lt=0.5)
    """Share of a step's pixels, those of the largest loss, whose foreground is not learned, for labels with errors.
    Ignored where a segmentor is trained further."""
    seed: NonNegativeInt = 0
    """Seed of the new layers' weights and of the crops."""
    stream: NonNegativeInt = 0
    """Number of the random stream that the crops are drawn from: other crops with the same seed, in each EM round."""
    skip: bool = False
    """Copy `model` at once, which must be a segmentor: the EM loop is over."""

    def max_processes(self) -> int:
        """As many as there are crops in a batch; one where there is nothing to train."""
        return 1 if self.skip else self.batch_size
