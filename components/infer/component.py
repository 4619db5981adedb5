"""Declaration of `infer`."""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, PositiveInt

from shared.artifacts.kinds import Files, ImageSet, LabelSet, Model
from shared.artifacts.postprocessing import PostProcessingOptions
from shared.exporters import Format
from shared.models.prediction_options import PredictionOptions
from shared.models.runtimes import Runtime
from shared.stage.declaration import In, MaybeIn, Out, Stage


class Infer(PostProcessingOptions, PredictionOptions, Stage):
    """Classify every image, and find the objects of those that are positive; write files that other programs open.

    With a classifier, each image ends in one of three ways: positive, negative, or abstain, where the classifier cannot
    tell at the target error, or where the image is unlike the training images. Detector and segmentor run on the
    positive images. Without a classifier they run on every image. Models that are absent are ignored.

    The classifier sees each image as a whole, resized to the size that it was trained at. An image that cannot be
    predicted is listed with the reason; the others are not affected.
    """

    image: ClassVar[str] = "torch"
    headlines: ClassVar[dict[str, str]] = {
        "trusted": "trusted (0: no, 1: yes)",
        "estimated_dice": "estimated Dice",
        "unlike": "images to check",
        "images": "images",
        "positive": "positive",
        "negative": "negative",
        "abstain": "abstained",
        "cells": "cells found",
        "boxes": "boxes found",
    }

    images: In[ImageSet]
    """Images to predict. A plain folder of images is accepted."""
    classifier: MaybeIn[Model]
    """Decides which images the other models see."""
    detector: MaybeIn[Model]
    """Finds boxes with classes."""
    segmentor: MaybeIn[Model]
    """Finds instances."""
    predictions: Out[LabelSet]
    """Class and outcome of each image, boxes with class and score, and label images whose instances have a score each,
    the mean foreground probability. Origin prediction."""
    files: Out[Files]
    """The predictions in the formats of `formats`, such as `labels/KEY.tif`, `overlays/KEY.png`, `cells.csv`."""
    formats: list[Format] = Field([*get_args(Format)])
    """File formats to write into `files`. Those for which no model is given are left out."""
    runtime: Runtime = "auto"
    """What runs the models. auto: TensorRT on a GPU where the model has an engine, else ONNX Runtime on a CPU where it
    has an ONNX file, else PyTorch."""
    target_error: Annotated[float, Field(gt=0, lt=1)] | Literal["none"] = 0.05
    """Share of the images of each class whose class may be missed, by split conformal prediction on the classifier's
    calibration images. An image for which several classes are plausible then is abstained from. none: the most
    probable class is the answer."""
    distance_quantile: Annotated[float, Field(gt=0, lt=1)] | Literal["none"] = 0.99
    """An image is abstained from if it is farther from the training images than this share of the calibration images.
    none: whatever its distance."""
    positive: list[str] = Field([])
    """Classes that count as positive. Empty: the class `positive`; where there is none, every class but `negative`, or
    else but the first."""
    on_abstain: Literal["stop", "continue"] = "stop"
    """continue: detector and segmentor run on images that are abstained from as well."""
    score_threshold: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = "auto"
    """Boxes of a lower score are dropped. auto: as the detector's config says."""
    image_batch: PositiveInt = 64
    """Images that are classified together, and small images that share a forward pass."""
    block: int = Field(4096, ge=256, multiple_of=16)
    """Rows that are processed at a time, in px. The network's maps of images with a longer side are kept on disk. The
    result does not depend on it."""
