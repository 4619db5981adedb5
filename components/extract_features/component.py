"""Declaration of `extract_features`."""

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from shared.artifacts.kinds import FeatureSet, ImageSet, Model
from shared.stage.declaration import In, Out, Stage


class ExtractFeatures(Stage):
    """Compute dense patch features of the training images and, with a segmentor, their foreground probability."""

    image: ClassVar[str] = "torch"

    images: In[ImageSet]
    """Images; all of the split train are embedded. `sample_images` chooses a part of a large set."""
    model: In[Model]
    """Encoder from `pretrain`, or the segmentor of the last round."""
    features: Out[FeatureSet]
    """float16 [tokens, channels], and the token grid of each image."""
    batch_size: PositiveInt = 16
    """Tiles in a forward pass."""
    tile: int = Field(160, ge=32, multiple_of=16)
    """Side of a tile in px as the network sees it, halo included. 160 gives cores of 128 px, which fit common sizes."""
    halo: int = Field(16, ge=0, multiple_of=16)
    """Margin of a tile in px whose features are discarded, on each side."""
    shifts: Literal[1, 2] = 1
    """2: add passes shifted by half a patch, which gives tokens at half the stride at four times the cost."""
    layers: PositiveInt = 2
    """Number of last blocks whose outputs are concatenated."""
    descriptor: Literal["model", "filters"] = "model"
    """What computes the features: the model, or, for comparison, a bank of filters that needs no training. Responses of
    the filters are standardised over the set."""
    skip: bool = False
    """Write an empty, flagged FeatureSet at once, because the EM loop has ended."""
