"""The encoder: a vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929) for any grid and any channel count.

Parameter names and arithmetic are those of timm's VisionTransformer, so that its checkpoints fit and its forward pass
checks this one in the tests. They are written out here because importing timm costs every stage 2 s and 200 MB. The
settings below its `position_grid` are those of others' encoders, which `pretrain` takes in: DINOv2 (Oquab et al. 2023,
arXiv:2304.07193; with registers Darcet et al. 2023, arXiv:2309.16588) and DINOv3 (Siméoni et al. 2025,
arXiv:2508.10104).
"""

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator
from torch import Tensor, nn

from shared.imaging.normalise import Normalisation
from shared.models.backbones.blocks import Block, initialise
from shared.models.backbones.rope import rotation
from shared.models.files import load_config, load_state, save_model
from shared.system.errors import ArtifactError

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
FIRST_POSITIONS = 64
"""In training, the first patch of a crop is at a random one of so many rows and columns."""


class EncoderConfig(BaseModel):
    """`config.json` of an encoder."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    # exclude_if: what says nothing is not written; the file of an encoder without it has the bytes it always had
    kind: Literal["encoder"] = "encoder"
    size: Size
    """Name of the preset the next three come from."""
    width: PositiveInt
    """Features of a token."""
    depth: PositiveInt
    """Blocks."""
    heads: PositiveInt
    """Attention heads."""
    patch: PositiveInt
    """px on the side of a patch."""
    channels: PositiveInt
    """Channels of the images."""
    crop: PositiveInt
    """px on the side of the crops it was trained on."""
    shrink: Literal[1, 2, 4] = 1
    """The transformer sees images made smaller by this factor, for objects too large to take in otherwise."""
    position_grid: int = 0
    """0: fixed sin-cos positions. Otherwise a learned table of so many positions down and across, as DINO has."""
    rope: bool = Field(default=False, exclude_if=lambda value: not value)
    """Positions turn queries and keys, see `rope.py`, in place of those above."""
    registers: NonNegativeInt = Field(default=0, exclude_if=lambda value: value == 0)
    """Learned tokens without a place, beside the class token; they are no part of the features."""
    layer_scale: bool = Field(default=False, exclude_if=lambda value: not value)
    """What attention and MLP add is scaled feature by feature."""
    norm_eps: float = Field(default=NORM_EPS, gt=0, exclude_if=lambda value: value == NORM_EPS)
    """What the norms add to the variance."""
    normalisation: Normalisation = Normalisation()
    """What makes network input of pixel values."""

    @model_validator(mode="after")
    def _one_kind_of_positions(self) -> "EncoderConfig":
        if self.rope and self.position_grid:
            raise ValueError("rope and position_grid: positions are of one kind")
        return self

    @classmethod
    def of(
        cls, size: Size, *, patch: int, channels: int, crop: int, shrink: Literal[1, 2, 4] = 1, position_grid: int = 0
    ) -> "EncoderConfig":
        """Config of a preset."""
        width, depth, heads = SIZES[size]
        return cls(
            size=size,
            width=width,
            depth=depth,
            heads=heads,
            patch=patch,
            channels=channels,
            crop=crop,
            shrink=shrink,
            position_grid=position_grid,
        )


class PatchEmbed(nn.Module):
    """Linear projection of each patch. (N, C, H, W) -> (N, width, H/patch, W/patch)."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, width, H/patch, W/patch)."""
        return self.proj(x)


def sincos_positions(
    height: int, width: int, channels: int, first: tuple[int, int] = (0, 0), dtype: torch.dtype = torch.float64
) -> Tensor:
    """Fixed 2-D positions (height * width, channels): sin and cos of the column, then of the row, in units of patches.

    As in MAE's reference code (He et al. 2022, `util/pos_embed.py`). first: row and column of the first patch.
    dtype: what is computed in; the result is float32.
    """
    omega = 1 / 10000 ** (torch.arange(channels // 4, dtype=dtype) / (channels // 4))
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=dtype) + first[0],
        torch.arange(width, dtype=dtype) + first[1],
        indexing="ij",
    )
    angles = [plane.reshape(-1, 1) * omega for plane in (columns, rows)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1).float()


class Encoder(nn.Module):
    """A vision transformer with a class token, and registers where the config has them. Tokens are row by row.

    In training mode fixed positions begin at a random row and column for each batch: where a patch lies within a crop
    means nothing, and grids larger than a training crop's hold no position that was never seen.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbed(config.channels, config.width, config.patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        if config.position_grid:
            self.pos_embed = nn.Parameter(torch.zeros(1, 1 + config.position_grid**2, config.width))
        if config.registers:
            self.reg_token = nn.Parameter(torch.zeros(1, config.registers, config.width))
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, layer_scale=config.layer_scale, norm_eps=config.norm_eps)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=config.norm_eps)
        self._positions: dict[tuple[int | str, ...], Tensor] = {}
        self.apply(initialise)
        patch_weight = self.patch_embed.proj.weight
        nn.init.xavier_uniform_(patch_weight.view(len(patch_weight), -1))  # as a linear layer, He et al. 2022, A.1
        nn.init.normal_(self.cls_token, std=0.02)
        if config.registers:
            nn.init.normal_(self.reg_token, std=0.02)

    def positions(self, height: int, width: int) -> Tensor:
        """Positions (1, height * width, self.config.width) of a grid of so many patches."""
        if self.config.position_grid:
            return _resized(self.pos_embed[:, 1:], self.config.position_grid, height, width)
        if torch.compiler.is_exporting():  # sizes are symbols then, and float64 is more than TensorRT knows
            return sincos_positions(height, width, self.config.width, dtype=torch.float32)[None]
        first = tuple(torch.randint(FIRST_POSITIONS, (2,)).tolist()) if self.training else (0, 0)
        key = (height, width, *first, str(self.cls_token.device))
        if key not in self._positions:
            made = sincos_positions(height, width, self.config.width, (first[0], first[1]))
            self._positions = {key: made[None].to(self.cls_token.device)}
        return self._positions[key]

    def turns(self, grid: tuple[int, int], places: Tensor | None = None) -> Tensor | None:
        """What `shared.models.backbones.rope.rotated` turns the patches of a grid (rows, columns) by; None without `rope`.

        places: (N, V), numbers of some patches of each image; None: all patches.
        """
        if not self.config.rope:
            return None
        head, device = self.config.width // self.config.heads, self.cls_token.device
        if torch.compiler.is_exporting():
            return rotation(*grid, head)
        key = (*grid, str(device))
        if key not in self._positions:
            with torch.inference_mode(False):  # kept for training as well
                self._positions = {key: rotation(*grid, head).to(device)}
        table = self._positions[key]
        return table if places is None else table[:, places].unsqueeze(2)

    def embed(self, x: Tensor, hidden: Tensor | None = None, blank: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) -> patch tokens with their positions (N, T, width), T = H/patch * W/patch.

        hidden: (N, T) bool, patches whose contents are replaced by `blank` (width,).
        """
        grid = self.patch_embed(x)
        tokens = grid.flatten(2).transpose(1, 2)
        if hidden is not None and blank is not None:
            tokens = torch.where(hidden[..., None], blank.to(tokens.dtype), tokens)
        return tokens if self.config.rope else tokens + self.positions(*grid.shape[2:])

    def embed_patches(self, patches: Tensor, places: Tensor, grid: tuple[int, int]) -> Tensor:
        """`embed` for some patches of each image: their pixels -> tokens with their positions (N, V, width).

        patches: (N, V, patch² * C), pixels row by row, channels innermost; places: (N, V), their numbers in the grid
        of so many rows and columns.
        """
        proj = self.patch_embed.proj
        tokens = F.linear(patches, proj.weight.permute(0, 2, 3, 1).flatten(1), proj.bias)
        return tokens if self.config.rope else tokens + self.positions(*grid)[0][places]

    def with_own_tokens(self, tokens: Tensor) -> Tensor:
        """(N, T, width) -> (N, 1 + registers + T, width): class token and registers go before the others."""
        first = self.cls_token + self.pos_embed[:, :1] if self.config.position_grid else self.cls_token
        own = torch.cat([first, self.reg_token], dim=1) if self.config.registers else first
        return torch.cat([own.expand(tokens.shape[0], -1, -1), tokens], dim=1)

    def without_registers(self, tokens: Tensor) -> Tensor:
        """(N, 1 + registers + T, width) -> (N, 1 + T, width)."""
        if not self.config.registers:
            return tokens
        return torch.cat([tokens[:, :1], tokens[:, 1 + self.config.registers :]], dim=1)

    def encode(self, tokens: Tensor, grid: tuple[int, int], places: Tensor | None = None) -> Tensor:
        """Embedded tokens (N, T, width) of a grid (rows, columns) -> class token and the tokens, normed.

        places: (N, T), numbers in the grid of the patches that they are; None: all of them. Returns (N, 1 + T, width).
        """
        x, turns = self.with_own_tokens(tokens), self.turns(grid, places)
        for block in self.blocks:
            x = block(x, turns)
        return self.without_registers(self.norm(x))

    def grid(self, x: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of images (N, C, H, W)."""
        return x.shape[2] // self.config.patch, x.shape[3] // self.config.patch

    def tokens(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) float32 -> class token and patch tokens (N, 1 + T, width), normed."""
        return self.encode(self.embed(x), self.grid(x))

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) float32, H and W multiples of the patch -> map (N, width, H/patch, W/patch)."""
        return self._as_map(self.tokens(x), x)

    def features(self, x: Tensor, layers: int) -> Tensor:
        """Images (N, C, H, W) -> the last `layers` blocks' outputs, normed (N, layers * width, H/patch, W/patch).

        The earliest of them comes first; the last `width` channels are `forward`'s.
        """
        out, tokens, turns = [], self.with_own_tokens(self.embed(x)), self.turns(self.grid(x))
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, turns)
            if i >= len(self.blocks) - layers:
                out.append(self._as_map(self.without_registers(self.norm(tokens)), x))
        return torch.cat(out, dim=1)

    def _as_map(self, tokens: Tensor, x: Tensor) -> Tensor:
        return tokens[:, 1:].transpose(1, 2).reshape(x.shape[0], -1, *self.grid(x))


def _resized(table: Tensor, side: int, height: int, width: int) -> Tensor:
    """Learned positions (1, side * side, width) -> (1, height * width, width), bicubic, as DINO and timm do."""
    if (height, width) == (side, side):
        return table
    grid = table.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(height, width), mode="bicubic", antialias=True, align_corners=False)
    return grid.permute(0, 2, 3, 1).reshape(1, height * width, -1)


def save_encoder(folder: Path, encoder: Encoder, config: EncoderConfig, card: str) -> None:
    """Write the payload of a Model artifact of kind encoder."""
    save_model(folder, encoder.state_dict(), config, card)


def load_encoder(folder: Path) -> tuple[Encoder, EncoderConfig]:
    """The encoder that `save_encoder` wrote, in evaluation mode on the CPU.

    Raises ArtifactError where the folder holds a model of another kind, or weights that do not fit its config.
    """
    config = load_config(folder, EncoderConfig)
    encoder = Encoder(config)
    load_exactly(encoder, load_state(folder), folder)
    return encoder.eval(), config


def load_exactly(module: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
    """Load `state` into `module`; raises ArtifactError naming the folder where a name or shape does not fit."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise ArtifactError(
            f"{folder}: the weights do not fit config.json ({first[0].strip()}); make the model again"
        ) from error
