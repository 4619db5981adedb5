"""Declare the configs of models, `config.json`: one class for each kind of network, told apart by `kind`.

Every config has three parts: the architecture, the input that the network expects, and the post-processing of its
output. To add a kind, add its config class to the union `ModelConfig`, and its network to `NETWORKS` in `load`.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from shared.artifacts.postprocessing import PostProcessing
from shared.imaging.normalise import Normalisation
from shared.models.decoders.target_maps import TARGET_MAPS, known_target

VitSize = Literal["nano", "tiny", "small", "base", "large"]
VIT_SHAPES: dict[VitSize, tuple[int, int, int]] = {
    "nano": (128, 6, 4),
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}
"""Size -> width, depth, heads. All but nano are timm's `vit_SIZE_patch*`."""
Downsample = Literal[1, 2, 4]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelInput(_Part):
    """The images that a network expects."""

    channels: PositiveInt
    """Number of channels."""
    normalisation: Normalisation = Normalisation()
    """Mapping of pixel values to network input."""
    downsample: Downsample = 1
    """Factor by which images are downsampled for the network, for objects that are large compared with its patches."""
    magnification: PositiveInt = 1
    """Factor by which images are enlarged before anything else, for objects that are small compared with its patches.
    All other lengths hold after it."""
    um_per_px: PositiveFloat | None = None
    """Median pixel size of the training images, before downsampling; None where no image file states it."""
    crop_px: PositiveInt | None = None
    """Side of the training crops, after downsampling."""
    object_px: PositiveFloat | None = None
    """Median over the training images of the typical object's diameter, before downsampling; None where unknown."""
    window_px: PositiveInt | None = None
    """Of a classifier: side of the centred square that is resized to `crop_px`; None: the whole image is resized."""


class VitArchitecture(_Part):
    """A vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929)."""

    size: VitSize
    """Name of the preset that width, depth and heads come from."""
    width: PositiveInt
    """Features of a token."""
    depth: PositiveInt
    """Number of blocks."""
    heads: PositiveInt
    """Number of attention heads."""
    patch: PositiveInt
    """Side of a patch, px."""
    position_grid: PositiveInt | None = None
    """Rows and columns of a table of learned positions, as in DINO; None: fixed sin-cos positions, or `rope`."""
    rope: bool = False
    """Rotary positions, see `shared.models.backbones.rope`."""
    registers: NonNegativeInt = 0
    """Number of register tokens, learned tokens without a position (Darcet et al. 2023, arXiv:2309.16588)."""
    layer_scale: bool = False
    """Scale the output of attention and MLP per feature (Touvron et al. 2021, arXiv:2103.17239)."""
    norm_eps: PositiveFloat = 1e-6
    """Constant that the layer norms add to the variance."""

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"the width {self.width} is no multiple of the number of heads, {self.heads}")
        if self.rope and self.position_grid:
            raise ValueError("rope excludes position_grid; set one of them")
        return self

    @classmethod
    def preset(cls, size: VitSize, patch: int, position_grid: int | None = None) -> "VitArchitecture":
        """Return the architecture of a named size."""
        width, depth, heads = VIT_SHAPES[size]
        return cls(size=size, width=width, depth=depth, heads=heads, patch=patch, position_grid=position_grid)


class NoPostProcessing(_Part):
    """Post-processing of a network whose output is used unchanged."""


class EncoderConfig(_Part):
    """`config.json` of an encoder."""

    kind: Literal["encoder"] = "encoder"
    architecture: VitArchitecture
    input: ModelInput
    postprocessing: NoPostProcessing = NoPostProcessing()

    @classmethod
    def preset(
        cls,
        size: VitSize,
        *,
        patch: int,
        channels: int,
        crop: int,
        downsample: Downsample = 1,
        position_grid: int | None = None,
    ) -> "EncoderConfig":
        """Return the config of an encoder of a named size; crop: side of the training crops, px."""
        architecture = VitArchitecture.preset(size, patch, position_grid)
        return cls(architecture=architecture, input=ModelInput(channels=channels, crop_px=crop, downsample=downsample))


class SegmentorArchitecture(_Part):
    """A vision transformer and a U-Net decoder, see `shared.models.segmentor`."""

    encoder: VitArchitecture
    width: PositiveInt = 16
    """Channels of the decoder at half resolution; 2 and 3 times as many at a quarter and an eighth. A multiple of 8."""
    target: Annotated[str, AfterValidator(known_target)] = "foreground_distance"
    """Training target: the module of `shared.targets` that encodes labels and decodes the output maps."""


class SegmentorConfig(_Part):
    """`config.json` of a segmentor."""

    kind: Literal["segmentor"] = "segmentor"
    architecture: SegmentorArchitecture
    input: ModelInput
    postprocessing: PostProcessing = PostProcessing()

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the output maps, foreground first."""
        return TARGET_MAPS[self.architecture.target]

    @property
    def encoder(self) -> EncoderConfig:
        """Config of the segmentor's encoder alone."""
        return EncoderConfig(architecture=self.architecture.encoder, input=self.input)


class ClassifierArchitecture(_Part):
    """A vision transformer and a linear layer on its pooled tokens, see `shared.models.classifier`."""

    encoder: VitArchitecture
    classes: tuple[str, ...] = Field(min_length=2)
    """Names of the classes, in the order of the outputs."""
    pooling: Literal["mean", "mean_and_max", "class_token"] = "mean"
    """What the linear layer sees: the mean of the patch tokens, their mean and maximum, or the class token."""
    stem: bool = False
    """A small ConvNet beside the transformer, see `shared.models.classifier.ConvolutionalStem`."""


class ClassifierPostProcessing(_Part):
    """How probabilities are made of a classifier's outputs, and how far they can be trusted."""

    temperature: PositiveFloat = 1.0
    """The logits are divided by it (Guo et al. 2017, arXiv:1706.04599)."""
    calibration: tuple[tuple[float, ...], ...] = ()
    """For each class, probabilities of that class on calibration images of that class, ascending: the scores of split
    conformal prediction (Angelopoulos & Bates 2021, arXiv:2107.07511). Empty: not calibrated."""
    calibration_distances: tuple[float, ...] = ()
    """Distances of the calibration images from the training images, ascending, see `shared.models.classifier`."""


class ClassifierConfig(_Part):
    """`config.json` of a classifier. Its images are resized to `input.crop_px` on both sides."""

    kind: Literal["classifier"] = "classifier"
    architecture: ClassifierArchitecture
    input: ModelInput
    postprocessing: ClassifierPostProcessing = ClassifierPostProcessing()

    @property
    def encoder(self) -> EncoderConfig:
        """Config of the classifier's encoder alone."""
        return EncoderConfig(architecture=self.architecture.encoder, input=self.input)


class ResNetArchitecture(_Part):
    """A ResNet (He et al. 2016, arXiv:1512.03385) without its last pooling and linear layer."""

    depth: Literal[18, 34, 50] = 18
    """Number of layers."""
    variant: Literal["plain", "d", "rt_detr"] = "plain"
    """plain: torchvision's; d: three small convolutions first, and average pooling in the shortcuts (He et al. 2019,
    arXiv:1812.01187), as timm's `resnet18d`; rt_detr: as d, with a convolution in the first block's shortcut too."""
    norm: Literal["batch", "frozen", "group"] = "group"
    """batch: statistics of the batch; frozen: of a pretrained network, unchanged; group: of each image, for small
    batches (Wu & He 2018, arXiv:1803.08494)."""


DetectorSize = Literal["small", "standard"]
DETECTOR_SHAPES: dict[DetectorSize, dict[str, float]] = {
    "small": {"width": 128, "expansion": 0.5, "heads": 4, "feed_forward": 256, "decoder_layers": 3, "denoising": 50},
    "standard": {"width": 256, "expansion": 1, "heads": 8, "feed_forward": 1024, "decoder_layers": 6, "denoising": 100},
}
"""Size -> fields of DetectorArchitecture. standard: RT-DETRv2's; small trains on two CPU cores."""


class DetectorArchitecture(_Part):
    """RT-DETRv2 (Lv et al. 2024, arXiv:2407.17140) on a backbone, see `shared.models.detector`."""

    backbone: VitArchitecture | ResNetArchitecture
    classes: tuple[str, ...] = Field(min_length=1)
    """Names of the classes, in the order of the outputs."""
    queries: PositiveInt = 300
    """Objects that the decoder can find in a tile."""
    pyramid: Literal["vitdet", "resample"] = "vitdet"
    """How a vision transformer's single map becomes three, see `shared.models.backbones.pyramid`."""
    detail: bool = True
    """Add the maps of a light convolutional branch to those of a vision transformer."""
    width: PositiveInt = 256
    """Features of a query, and channels of the hybrid encoder's maps."""
    expansion: PositiveFloat = 1.0
    """Channels within the blocks of the hybrid encoder, relative to `width`."""
    heads: PositiveInt = 8
    """Number of attention heads."""
    feed_forward: PositiveInt = 1024
    """Hidden features of the transformer layers' MLPs."""
    encoder_layers: PositiveInt = 1
    """Number of transformer layers on the map of stride 32."""
    decoder_layers: PositiveInt = 6
    """Number of transformer layers of the queries."""
    denoising: NonNegativeInt = 100
    """Number of additional queries in training, true boxes with noise (Zhang et al. 2022, arXiv:2203.03605)."""
    norm: Literal["batch", "group"] = "group"
    """Normalisation after the hybrid encoder's convolutions; batch: as RT-DETR's weights need."""

    @classmethod
    def preset(
        cls, size: DetectorSize, backbone: VitArchitecture | ResNetArchitecture, classes: tuple[str, ...], **fields: Any
    ) -> "DetectorArchitecture":
        """Return the architecture of a named size; fields: whatever differs from it."""
        return cls.model_validate({**DETECTOR_SHAPES[size], "backbone": backbone, "classes": classes, **fields})


class DetectorPostProcessing(_Part):
    """From a detector's boxes to objects."""

    score_threshold: float = Field(default=0.5, ge=0, le=1)
    """Boxes of a lower score are dropped."""
    merge_iou: float = Field(default=0.4, gt=0, le=1)
    """Boxes of one class from two tiles are one object where they agree by this IoU within the tiles' common area."""
    nms_iou: float | None = Field(default=None, gt=0, le=1)
    """Of two boxes of one class in one tile that overlap by more than this IoU, the one of lower score is dropped;
    None: all stay, as the network learns to find each object once."""
    overlap_px: PositiveInt | None = None
    """Overlap of neighbouring tiles, after downsampling: at least the longer side of most objects' boxes. None: a
    quarter of the tile."""


class DetectorConfig(_Part):
    """`config.json` of a detector."""

    kind: Literal["detector"] = "detector"
    architecture: DetectorArchitecture
    input: ModelInput
    postprocessing: DetectorPostProcessing = DetectorPostProcessing()

    @property
    def encoder(self) -> EncoderConfig | None:
        """Config of the vision transformer alone; None where the backbone is a ResNet."""
        backbone = self.architecture.backbone
        return EncoderConfig(architecture=backbone, input=self.input) if isinstance(backbone, VitArchitecture) else None


class AbsentConfig(_Part):
    """`config.json` of a model that was not made, because its stage had nothing to learn from."""

    kind: Literal["absent"] = "absent"


ModelConfig = Annotated[
    EncoderConfig | SegmentorConfig | ClassifierConfig | DetectorConfig | AbsentConfig, Field(discriminator="kind")
]
