"""Declaration of `evaluate`."""

from typing import ClassVar, Literal

from pydantic import NonNegativeInt, PositiveInt

from shared.artifacts.kinds import ClassificationMetrics, ImageSet, LabelSet, Model, Scores
from shared.artifacts.postprocessing import PostProcessingOptions
from shared.models.prediction_options import PredictionOptions
from shared.stage.declaration import In, MaybeIn, Out, Stage


class Evaluate(PostProcessingOptions, PredictionOptions, Stage):
    """Score a model or its predictions on labelled images: metrics of pixels, of instances and for cell tracking.

    Images whose labels the model learned from are left out. If there are no others, they are scored all the same and
    the scores are flagged as too high. Without label images the Scores artifact is empty and flagged as skipped.
    """

    image: ClassVar[str] = "torch"
    headlines: ClassVar[dict[str, str]] = {"dice": "Dice", "f1": "F1 at IoU 0.5"}

    images: In[ImageSet]
    """Images, labelled and not."""
    truth: In[LabelSet]
    """Labels to score against, origin truth."""
    model: MaybeIn[Model]
    """Segmentor to score. Give either this or `predictions`."""
    predictions: MaybeIn[LabelSet]
    """Predictions of `infer`. They are scored unchanged: tiles, scale and post-processing apply to a model only."""
    scores: Out[Scores]
    """`scores.json` over all images and `scores.csv` per image."""
    classification: Out[ClassificationMetrics]
    """Confusion matrix of background and cell over the pixels whose truth is known and, for a model, the ROC curve of
    its foreground probability, as JSON. `null` without labels."""
    max_images: PositiveInt | Literal["all"] = "all"
    """Labelled images to score, evenly spread over the set."""
    use_labels: NonNegativeInt = 0
    """Number of labelled images that the model learned from, the first ones of the split train."""
