"""Declaration of `train_classifier`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from shared.artifacts.kinds import ClassificationMetrics, ImageSet, LabelSet, Model
from shared.stage.declaration import In, Out, Stage


class TrainClassifier(Stage):
    """Train a classifier of images or crops on an encoder, and calibrate its probabilities.

    It learns from the labelled images of the split train. Those of val are divided into two halves, by group: one
    decides when training stops and sets the temperature of the probabilities; the other, which decides nothing, holds
    the scores and distances by which `infer` abstains. Without a split val, both are made of a fifth of the training
    images, by group; if these are too few for that, all of them are learned from, and `infer` cannot abstain. Images of
    the split test are scored only.
    """

    image: ClassVar[str] = "torch"
    headlines: ClassVar[dict[str, str]] = {
        "test_auroc": "AUROC, test",
        "test_accuracy": "accuracy, test",
        "test_ece": "ECE, test",
        "val_auroc": "AUROC, val",
        "val_accuracy": "accuracy, val",
    }

    images: In[ImageSet]
    """Images or crops of single objects, with 1 to 16 channels of 8 or 16 bit."""
    truth: In[LabelSet]
    """Classes of the images; two or more. Images without a class are not used."""
    encoder: In[Model]
    """Encoder to start from, of any kind of pretraining."""
    classifier: Out[Model]
    """The classifier, with its encoder, the temperature, and the scores and distances of the calibration images."""
    classification: Out[ClassificationMetrics]
    """Confusion matrix of the images of test, or of val where there are none of test, and with two classes the ROC
    curve, as JSON. `null` where nothing was trained."""
    tune: Literal["all", "last", "none"] = "all"
    """Which blocks of the encoder are trained. none: a linear layer on the frozen encoder (linear probe)."""
    last_blocks: PositiveInt = 2
    """Number of blocks that `tune=last` trains."""
    layer_decay: float = Field(0.5, gt=0, le=1)
    """Factor on the learning rate from each block to the one before it (Bao et al. 2022, arXiv:2106.08254)."""
    stem: bool = True
    """Train a small ConvNet beside the transformer, for details smaller than a patch; only with `tune=all`."""
    pooling: Literal["mean", "mean_and_max", "class_token"] = "mean_and_max"
    """What of the patch tokens the last layer sees."""
    size: Annotated[int, Field(ge=16, le=512)] | Literal["auto"] = "auto"
    """Side to which images are resized, px, a multiple of the encoder's patch. auto: about theirs, from 32 to 128."""
    fit: Literal["auto", "stretch", "window"] = "auto"
    """stretch: every image is resized to a square. window: all are resized by one factor and centred in a square
    into which 95 % of them fit, so that large objects look larger than small ones. auto: window where the images are
    of at most 512 px and their sizes differ, as crops of single objects do; otherwise stretch."""
    intensity: Literal["set", "image"] = "set"
    """What becomes 0 and 1 in the network's input. set: the same values in all images, the medians of the training
    images' percentiles, so that brightness, colour and contrast tell classes apart. image: the percentiles of each
    image, for images whose exposure or stain varies and means nothing."""
    steps: PositiveInt = 1200
    """Optimiser steps at most."""
    batch_size: PositiveInt = 32
    """Images in a step."""
    learning_rate: float = Field(2e-3, gt=0)
    """Peak learning rate of the last layer."""
    weight_decay: float = Field(0.05, ge=0)
    """Of AdamW."""
    early_stop: bool = True
    """Score val twenty times in a training, keep the best weights, and stop after half of the training without a better
    score, or when val leaves nothing to learn. Otherwise the last weights are kept."""
    augment: Literal["full", "flips", "none"] = "full"
    """flips: flips and turns by 90 degrees. full: half of the images are also turned by any angle, shifted and scaled a
    little, and all get other contrast, brightness and gamma, some a blur."""
    balance: Literal["sampling", "loss", "none"] = "sampling"
    """For classes of different frequency: draw rare classes more often, or weigh their loss more. The probabilities are
    corrected to the frequencies of the training images afterwards, if that makes val more likely."""
    label_smoothing: float = Field(0.05, ge=0, lt=1)
    """Share of the target's probability that is spread over all classes."""
    max_labels: PositiveInt | Literal["all"] = "all"
    """Labelled training images that are used at most, each class by its share."""
    without_labels: Literal["fail", "skip"] = "fail"
    """Where no two classes are known: fail, or write an absent model, which later stages ignore."""
    seed: NonNegativeInt = 0
    """Seed of the new layers' weights, of the batches, and of the choice of images where splits are made."""

    def max_processes(self) -> int:
        """Return the images of a batch."""
        return self.batch_size
