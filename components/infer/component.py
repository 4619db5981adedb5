"""Declaration of `infer`."""

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from shared.artifacts.kinds import ImageSet, Model, Predictions
from shared.stage.declaration import In, Out, Stage


class Infer(Stage):
    """Find the cells of every image and write them as plain files that other programs open."""

    image: ClassVar[str] = "torch"

    images: In[ImageSet]
    """Images to predict on; a plain folder will do."""
    model: In[Model]
    """A segmentor."""
    predictions: Out[Predictions]
    """`labels/KEY.tif`, `semantic/KEY.png`, `overlays/KEY.png`, `cells.csv`, `coco.json`."""
    batch_size: PositiveInt = 16
    """Tiles per forward pass."""
    tile: int = Field(128, ge=64, multiple_of=16)
    """px on the side of a tile as the network sees it, halo included; up to a quarter more where that fits an image."""
    block: int = Field(4096, ge=256, multiple_of=16)
    """px; the probability of larger images is kept on disk and read so many rows at a time. Same pixels either way."""
    threshold: float = Field(0.5, gt=0, lt=1)
    """Foreground probability from which on a pixel is cell."""
    sure: float = Field(0.0, ge=0, le=1)
    """An object is kept where its foreground probability reaches this somewhere (hysteresis thresholding). 0: as the
    segmentor's config says, which is about 0.9 where it is sure of cells at all."""
    min_distance: int = Field(4, ge=1)
    """px between the seeds of two instances, at least."""
    sharpen: Literal["auto", "none", "means", "edges"] = "auto"
    """How the masks' borders move to where the image changes: to where intensity is half way between the means around
    it, or to the steepest gradient. auto: as the segmentor's config says."""
    saddle: float = Field(0.0, ge=0, le=1)
    """Two seeds are one cell where the depth between them stays above this share of the shallower one's. 1: never.
    0: as the segmentor's config says, which is 0.8 unless labels taught it otherwise."""
    min_area: NonNegativeInt = 16
    """px²; smaller objects are dropped."""
    min_share: float = Field(0.05, ge=0, lt=1)
    """Objects below this share of the image's typical object's area are dropped."""
    min_depth: float = Field(0.5, ge=0, lt=1)
    """Objects whose middle is below this share of the typical one's depth, as the segmentor sees it, are dropped."""
