"""Declaration of `train_segmentor`."""

from typing import ClassVar

from pydantic import Field, NonNegativeInt, PositiveInt

from shared.artifacts.kinds import ImageSet, LabelSet, Model
from shared.stage.declaration import In, Out, Stage


class TrainSegmentor(Stage):
    """The M-step: train a network on the pseudo-masks, and say whether the loop has converged."""

    image: ClassVar[str] = "torch"

    images: In[ImageSet]
    """Images to train on."""
    labels: In[LabelSet]
    """Their pseudo-masks with confidence."""
    model: In[Model]
    """Encoder to build on in the first round, the last round's segmentor to go on from afterwards."""
    segmentor: Out[Model]
    """The segmentor, kind segmentor; it holds its encoder."""
    converged: Out[bool]
    """Whether later rounds may pass through: the pseudo-masks stopped changing."""
    agreement: float = Field(0.0, ge=0, le=1)
    """Dice of this round's pseudo-masks with the last round's, from `refine_masks`."""
    stop_agreement: float = Field(0.97, gt=0, le=1)
    """Agreement from which on the loop counts as converged."""
    steps: PositiveInt = 400
    """Optimiser steps of the first round for each kind of images in the set, up to four. Half as many are taken to go
    on from a segmentor, and in a first round whose masks missed the edges in the images."""
    batch_size: PositiveInt = 12
    """Crops a step."""
    crop: int = Field(128, ge=32, multiple_of=16)
    """px on the side of a training crop."""
    learning_rate: float = Field(3e-3, gt=0)
    """Peak learning rate of the first round; half of it is used to go on from a segmentor."""
    encoder_rate: float = Field(0.0, ge=0, le=1)
    """Learning rate of the encoder, relative to that. 0: it stays as it is, which halves the time of a step."""
    left_out: float = Field(0.1, ge=0, lt=0.5)
    """Share of a step's pixels, those of the largest loss, whose foreground is not learned in the first round where its
    masks missed the edges in the images. Every pixel is learned of masks that follow the edges, and where a person drew
    some of them."""
    seed: NonNegativeInt = 0
    """Of the new layers' weights and the crops."""
    number: NonNegativeInt = 0
    """Number of the EM round; each draws other crops."""
    skip: bool = False
    """Copy `model` at once: the EM loop has converged."""

    def most_processes(self) -> int:
        """As many as there are crops in a batch; one where there is nothing to train."""
        return 1 if self.skip else self.batch_size
