"""Declaration of `train_detector`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from shared.artifacts.kinds import ImageSet, LabelSet, Model
from shared.stage.declaration import External, In, MaybeIn, Out, Stage


class TrainDetector(Stage):
    """Train a detector, RT-DETRv2 (Lv et al. 2024, arXiv:2407.17140), on boxes or on the instances of pseudo-masks.

    With images without labels it also learns from its own predictions, as MixPL (Chen et al. 2023, arXiv:2312.07006).
    """

    image: ClassVar[str] = "torch"
    headlines: ClassVar[dict[str, str]] = {"ap50": "AP50", "ap": "AP", "f1": "F1 at IoU 0.5"}

    images: In[ImageSet]
    """Images. Those of split train with boxes are learned from, those of split val choose weights and threshold."""
    truth: In[LabelSet]
    """Boxes with classes, or label images of instances, whose class is `cell`."""
    pseudo: MaybeIn[LabelSet]
    """Pseudo-masks or predictions: label images, whose instances have the class `cell`."""
    encoder: In[Model]
    """Encoder to build on. Its channels and normalisation are the detector's, whatever `backbone` is."""
    unlabelled: MaybeIn[ImageSet]
    """Images for semi-supervised training. Those that have labels are left out, so it may be `images` itself."""
    detector: Out[Model]
    """The detector, with the score threshold of the best F1 on the split val."""

    labels: Literal["auto", "boxes", "pseudo"] = "auto"
    """boxes: learn from `truth`; pseudo: from `pseudo`; auto: from `truth` where training images have boxes or
    instances, else from `pseudo`."""
    without_labels: Literal["fail", "skip"] = "fail"
    """Where there is nothing to learn from: fail, or skip and write a model of kind absent."""
    weights: Annotated[str, External] = ""
    """Path or uri of weights of RT-DETRv2 as the library transformers stores them, such as `model.safetensors` of
    `PekingU/rtdetr_v2_r18vd`, to start from. Backbone and decoder are then those of the weights; the classes are new.
    Empty: start from random weights."""
    backbone: Literal["encoder", "resnet18", "resnet34", "resnet50"] = "encoder"
    """Network that makes the feature maps: the vision transformer `encoder`, or a ResNet as a control."""
    backbone_weights: Annotated[str, External] = ""
    """Path or uri of weights of a ResNet from torchvision, .safetensors or weights-only .pth. Empty: random weights."""
    size: Literal["small", "standard"] = "small"
    """Decoder: standard is RT-DETRv2's; small, half as wide and deep, trains on two CPU cores."""
    detail: bool = True
    """Add a light convolutional branch to the maps of the vision transformer, for detail finer than its patches."""
    pyramid: Literal["vitdet", "resample"] = "vitdet"
    """How the transformer's single map becomes three: learned, or resampled."""
    queries: PositiveInt | Literal["auto"] = "auto"
    """Objects that can be found in a tile. auto: 1.5 times those of the training images' densest tile, at least 50."""
    crop: int = Field(256, ge=64, multiple_of=32)
    """Side of a training crop, px after downsampling; less where all images are smaller. Large images are predicted in
    tiles of this side."""
    downsample: Literal["auto", "1", "2", "4"] = "auto"
    """Downsample the images by this factor for the network. auto: the largest that leaves half of the boxes at least 24
    px long."""
    steps: PositiveInt = 2000
    """Optimiser steps."""
    batch_size: PositiveInt = 8
    """Labelled crops per step."""
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate."""
    encoder_rate: float = Field(0.3, ge=0, le=1)
    """Learning rate of the backbone as a share of `learning_rate`; 0 freezes the encoder."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """Factor on the learning rate from each of the encoder's blocks to the one before it (Bao et al. 2022, BEiT,
    arXiv:2106.08254)."""
    warmup_steps: PositiveInt = 200
    """Steps over which the learning rate rises; at most a fifth of all."""
    schedule: Literal["cosine", "flat"] = "cosine"
    """Learning rate after the warm-up: half a cosine down to 0, or constant."""
    average_decay: float = Field(0.998, ge=0, lt=1)
    """Decay of the moving average of the weights, once it has warmed up. The average is scored and saved."""
    mosaic: float = Field(0.3, ge=0, le=1)
    """Share of crops that are joined from parts of four images; 0 in the last fifth of the steps."""
    mixup: float = Field(0.0, ge=0, le=1)
    """Share of crops that are the mean of two crops; 0 in the last fifth of the steps."""
    scale_jitter: float = Field(1.4, ge=1, le=4)
    """Crops show objects up to this factor larger or smaller than they are."""
    valid_share: float = Field(0.2, gt=0, lt=1)
    """Share of the groups of the split train that are held out where the split val has no boxes."""
    valid_every: PositiveInt = 200
    """Steps between two measurements of the average precision on held-out images. The best weights are kept."""
    patience: PositiveInt = 10
    """Measurements without a better average precision after which training ends."""
    unlabelled_batch: PositiveInt = 8
    """Crops of unlabelled images per step."""
    unlabelled_weight: NonNegativeFloat = 2.0
    """Weight of the loss on unlabelled crops; 0: they are not used. The last fifth of the steps learns from labelled
    crops alone, and so corrects what wrong pseudo-boxes taught."""
    pseudo_threshold: float = Field(0.4, gt=0, le=1)
    """Score from which a box of the teacher becomes a pseudo-box."""
    max_pseudo_boxes: PositiveInt | Literal["auto"] = "auto"
    """Pseudo-boxes in a crop, those of the highest scores. auto: `queries`, which is the most in any case."""
    ramp_up_epochs: PositiveFloat = 20.0
    """Passes over all images in which the weight of the unlabelled crops rises."""
    seed: NonNegativeInt = 0
    """Seed of the new layers' weights and of the crops."""

    def max_processes(self) -> int:
        """Return the labelled crops of a batch."""
        return self.batch_size
