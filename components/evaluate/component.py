"""Declaration of `evaluate`."""

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from shared.artifacts.kinds import ClassificationMetrics, ImageSet, LabelSet, Model, Predictions, Scores
from shared.stage.declaration import In, MaybeIn, Out, Stage


class Evaluate(Stage):
    """Score a model or its predictions on images with known labels: pixels, instances, tracking-challenge measures.

    Images whose labels the loop learned from are left out. Where there are no others they are scored all the same, and
    flagged: such scores flatter. Without labels it writes an empty, flagged Scores artifact and says so.
    """

    image: ClassVar[str] = "torch"

    images: In[ImageSet]
    """Images, labelled and not."""
    truth: In[LabelSet]
    """Labels to score on, origin truth."""
    model: MaybeIn[Model]
    """A segmentor. Either this or `predictions`."""
    predictions: MaybeIn[Predictions]
    """The cells that `infer` found, scored as they are; the parameters below say how a model is applied."""
    scores: Out[Scores]
    """`scores.json` over all images and `scores.csv` per image."""
    classification: Out[ClassificationMetrics]
    """Background against cell: the confusion matrix of the pixels whose truth is known and, of a model, the ROC curve
    of its foreground probability, as JSON. `null` without labels."""
    most_images: NonNegativeInt = 0
    """Labelled images to score, evenly spread over the set; 0: all."""
    use_labels: NonNegativeInt = 0
    """So many labelled images were learned from, the first ones of the split train. 0: label-free."""
    batch_size: PositiveInt = 16
    """Tiles per forward pass."""
    tile: int = Field(128, ge=64, multiple_of=16)
    """px on the side of a tile as the network sees it, halo included; up to a quarter more where that fits an image."""
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
