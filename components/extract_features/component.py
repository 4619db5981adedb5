"""Declaration of `extract_features`."""

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from shared.artifacts.kinds import FeatureSet, ImageSet, LabelSet, Model
from shared.stage.declaration import In, Out, Stage


class ExtractFeatures(Stage):
    """Dense patch features of the images the loop learns from; from a segmentor its foreground probability as well."""

    image: ClassVar[str] = "torch"

    images: In[ImageSet]
    """Images to embed, those of the split train."""
    truth: In[LabelSet]
    """Labels of some images. Looked at only where `use_labels` is above 0."""
    model: In[Model]
    """Encoder from `pretrain`, or the last round's segmentor; which, its config.json says."""
    features: Out[FeatureSet]
    """float16 [tokens, channels], and the token grid of each image."""
    max_images: PositiveInt = 500
    """Images that are considered, evenly spread over a larger set."""
    max_megapixels: PositiveFloat = 24.0
    """Of these so many million px, as the network sees them, are embedded, rare kinds of images rather than common
    ones: a round draws crops of some 40 in all."""
    use_labels: NonNegativeInt = 0
    """So many labelled images are among them in any case."""
    batch_size: PositiveInt = 16
    """Tiles per forward pass."""
    tile: int = Field(160, ge=32, multiple_of=16)
    """px on the side of a tile as the network sees it, halo included. 160: cores of 128 px, which fit common sizes."""
    halo: int = Field(16, ge=0, multiple_of=16)
    """px at each side of a tile whose features are thrown away."""
    shifts: Literal[1, 2] = 1
    """2: also passes shifted by half a patch, for tokens at half the stride, at four times the cost."""
    layers: PositiveInt = 2
    """How many of the last blocks' outputs are concatenated."""
    descriptor: Literal["model", "filters"] = "model"
    """What describes a token: the model, or a bank of filters that needs no training, for comparison. The filters'
    responses are standardised over the set."""
    skip: bool = False
    """Write an empty, flagged FeatureSet at once: the EM loop has converged."""
