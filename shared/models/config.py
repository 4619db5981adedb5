"""The configs of models, `config.json`: one kind for each network, told apart by `kind`.

Every config has three parts: the architecture, the input that the network expects, and the post-processing of its
output. A new kind of model adds a class to the union `ModelConfig`, and its network to `shared.models.load`.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from shared.artifacts.postprocessing import PostProcessing
from shared.imaging.normalise import Normalisation

Size = Literal["nano", "tiny", "small", "base", "large"]
SIZES: dict[str, tuple[int, int, int]] = {
    "nano": (128, 6, 4),
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}
"""Size -> width, depth, heads. All but nano are timm's `vit_SIZE_patch*`."""
NORM_EPS = 1e-6
Downsample = Literal[1, 2, 4]
Target = Literal["foreground_distance"]
MAPS: dict[Target, tuple[str, ...]] = {"foreground_distance": ("foreground", "distance")}
"""Target of training, a module of `shared.targets` -> the output maps of a network that learned it."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelInput(_Part):
    """What the network expects of an image."""

    channels: PositiveInt
    """Channels of the images."""
    normalisation: Normalisation = Normalisation()
    """How pixel values become network input."""
    downsample: Downsample = 1
    """The network sees images made smaller by this factor, for objects that are large against its patches."""
    um_per_px: PositiveFloat | None = None
    """Pixel size of the training images, their median; None where no file told it."""
    crop_px: PositiveInt | None = None
    """Side of the training crops as the network saw them."""


class VitArchitecture(_Part):
    """A vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929)."""

    size: Size
    """Name of the preset that width, depth and heads come from."""
    width: PositiveInt
    """Features of a token."""
    depth: PositiveInt
    """Blocks."""
    heads: PositiveInt
    """Attention heads."""
    patch: PositiveInt
    """px on the side of a patch."""
    position_grid: PositiveInt | None = None
    """Rows and columns of a learned table of positions, as DINO has; None: fixed sin-cos positions, or `rope`."""
    rope: bool = False
    """Rotary positions, see `shared.models.backbones.rope`."""
    registers: NonNegativeInt = 0
    """Learned tokens without a place, beside the class token (Darcet et al. 2023, arXiv:2309.16588)."""
    layer_scale: bool = False
    """Scale what attention and MLP add, feature by feature (Touvron et al. 2021, arXiv:2103.17239)."""
    norm_eps: PositiveFloat = NORM_EPS
    """What the norms add to the variance."""

    @model_validator(mode="after")
    def _one_kind_of_positions(self) -> Self:
        if self.rope and self.position_grid:
            raise ValueError("rope and position_grid: positions are of one kind")
        return self

    @classmethod
    def preset(cls, size: Size, patch: int, position_grid: int | None = None) -> "VitArchitecture":
        """The architecture of a named size."""
        width, depth, heads = SIZES[size]
        return cls(size=size, width=width, depth=depth, heads=heads, patch=patch, position_grid=position_grid)


class NoPostProcessing(_Part):
    """A network whose output is used as it is."""


class EncoderConfig(_Part):
    """`config.json` of an encoder."""

    kind: Literal["encoder"] = "encoder"
    architecture: VitArchitecture
    input: ModelInput
    postprocessing: NoPostProcessing = NoPostProcessing()

    @classmethod
    def preset(
        cls,
        size: Size,
        *,
        patch: int,
        channels: int,
        crop: int,
        downsample: Downsample = 1,
        position_grid: int | None = None,
    ) -> "EncoderConfig":
        """Config of an encoder of a named size; crop: px on the side of the training crops."""
        architecture = VitArchitecture.preset(size, patch, position_grid)
        return cls(architecture=architecture, input=ModelInput(channels=channels, crop_px=crop, downsample=downsample))


class SegmentorArchitecture(_Part):
    """A vision transformer and a U-Net decoder, see `shared.models.segmentor`."""

    encoder: VitArchitecture
    width: PositiveInt = 16
    """Channels of the decoder at half resolution; 2 and 3 times as many at a quarter and an eighth. A multiple of 8."""
    target: Target = "foreground_distance"
    """What the output maps mean: the module of `shared.targets` that encodes, trains and decodes them."""


class SegmentorConfig(_Part):
    """`config.json` of a segmentor."""

    kind: Literal["segmentor"] = "segmentor"
    architecture: SegmentorArchitecture
    input: ModelInput
    postprocessing: PostProcessing = PostProcessing()

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of its output maps, foreground first."""
        return MAPS[self.architecture.target]

    @property
    def encoder(self) -> EncoderConfig:
        """Config of its encoder alone."""
        return EncoderConfig(architecture=self.architecture.encoder, input=self.input)


ModelConfig = Annotated[EncoderConfig | SegmentorConfig, Field(discriminator="kind")]
