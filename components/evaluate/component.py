"""Declaration of `evaluate`."""

from typing import ClassVar, Literal

from pydantic import NonNegativeInt, PositiveInt

from shared.artifacts.kinds import ClassificationMetrics, ImageSet, LabelSet, Model, Scores
from shared.artifacts.postprocessing import PostProcessingOptions
from shared.models.prediction_options import PredictionOptions
from shared.models.runtimes import Runtime
from shared.stage.declaration import In, MaybeIn, Out, Stage


class Evaluate(PostProcessingOptions, PredictionOptions, Stage):
    """Score a model or its predictions on labelled images, by masks, by boxes and by classes.

    A segmentor is scored by label images (pixels, instances, cell tracking), a detector by boxes (COCO's average
    precision), a classifier by the classes of images; predictions by all that they and the truth hold. Boxes of a truth
    of label images are those of its instances. A detector's tiles have the size of its training crops.

    Images whose labels the model learned from are left out. If there are no others, they are scored all the same and
    the scores are flagged as too high. Where nothing fits, the Scores artifact is empty and flagged as skipped.
    """

    image: ClassVar[str] = "torch"
    headlines: ClassVar[dict[str, str]] = {
        "dice": "Dice",
        "f1": "F1 at IoU 0.5",
        "box_ap50": "AP50 of boxes",
        "box_ap": "AP of boxes",
        "accuracy": "accuracy",
        "auroc": "AUROC",
        "ece": "calibration error",
    }

    images: In[ImageSet]
    """Images, labelled and not."""
    truth: In[LabelSet]
    """Labels to score against, origin truth."""
    model: MaybeIn[Model]
    """Segmentor, detector or classifier to score. Give either this or `predictions`."""
    predictions: MaybeIn[LabelSet]
    """Predictions of `infer`. They are scored unchanged: tiles, scale and post-processing apply to a model only."""
    scores: Out[Scores]
    """`scores.json` over all images and `scores.csv` per image."""
    classification: Out[ClassificationMetrics]
    """Confusion matrix and, for probabilities, the ROC curve, as JSON; `null` where nothing is scored. Of the classes
    of images where they are scored; else of background and cell over the pixels whose truth is known; else of the
    classes of boxes."""
    runtime: Runtime = "pytorch"
    """What runs the model. onnx, onnx_int8, tensorrt: the file that `export_model` wrote. auto: TensorRT on a GPU where
    the model has an engine, else ONNX Runtime on a CPU where it has an ONNX file, else PyTorch."""
    split: Literal["auto", "train", "val", "test", "all"] = "auto"
    """Split whose images are scored. auto: by masks all that the model did not learn from; by boxes and classes test,
    where it has no labels val, and where neither has any train."""
    max_images: PositiveInt | Literal["all"] = "all"
    """Labelled images to score, evenly spread over the set."""
    use_labels: NonNegativeInt = 0
    """Number of label images that the model learned from, the first ones of the split train."""
    max_detections: PositiveInt | Literal["all"] = "all"
    """Boxes of a class in an image that count for the average precision, those of highest score. COCO counts 100."""
