"""Declaration of `evaluate`."""

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from shared.artifacts.kinds import ClassificationMetrics, ImageSet, LabelSet, Model, Scores
from shared.artifacts.postprocessing import PostProcessingOptions
from shared.stage.declaration import In, MaybeIn, Out, Stage


class Evaluate(PostProcessingOptions, Stage):
    """Score a model or its predictions on images with known labels: pixels, instances, tracking-challenge metrics.

    Images whose labels the loop learned from are left out. Where there are no others they are scored all the same, and
    the scores say so: they are too high. Without label images it writes an empty, flagged Scores artifact.
    """

    image: ClassVar[str] = "torch"
    headlines: ClassVar[dict[str, str]] = {"dice": "Dice", "f1": "F1 at 0.5"}

    images: In[ImageSet]
    """Images, labelled and not."""
    truth: In[LabelSet]
    """Labels to score on, origin truth."""
    model: MaybeIn[Model]
    """A segmentor. Either this or `predictions`."""
    predictions: MaybeIn[LabelSet]
    """The instances that `infer` found, scored as they are; the settings of post-processing are for a model."""
    scores: Out[Scores]
    """`scores.json` over all images and `scores.csv` per image."""
    classification: Out[ClassificationMetrics]
    """Background against cell: the confusion matrix of the pixels whose truth is known and, of a model, the ROC curve
    of its foreground probability, as JSON. `null` without labels."""
    max_images: PositiveInt | Literal["all"] = "all"
    """Labelled images to score, evenly spread over the set."""
    use_labels: NonNegativeInt = 0
    """Number of labelled images that were learned from, the first ones of the split train."""
    batch_size: PositiveInt = 16
    """Tiles in a forward pass."""
    tile: int = Field(128, ge=64, multiple_of=16)
    """px on the side of a tile as the network sees it, halo included; up to a quarter more where that fits an image."""
    rescale: Literal["never", "um_per_px"] = "never"
    """um_per_px: resample each image to the pixel size of the model's training images before it is predicted, where
    both are known. never: predict images as they are."""
