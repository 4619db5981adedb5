"""The encoder: a vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929) for any grid and any channel count.

Parameter names and arithmetic are those of timm's VisionTransformer, so that its checkpoints fit and its forward pass
checks this one in the tests. The 40 lines are written out here because importing timm costs every stage 2 s and 200 MB.
"""

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, PositiveInt
from torch import Tensor, nn

from shared.errors import ArtifactError
from shared.models.files import load_config, load_state, save_model
from shared.normalise import Normalisation

Size = Literal["nano", "tiny", "small", "base", "large"]
SIZES: dict[str, tuple[int, int, int]] = {
    "nano": (128, 6, 4),
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}
"""Size -> width, depth, heads. All but nano are timm's `vit_SIZE_patch*`."""

FIRST_POSITIONS = 64
"""In training, the first patch of a crop is at a random one of so many rows and columns."""


class EncoderConfig(BaseModel):
    """`config.json` of an encoder."""

    model_config = ConfigDict(extra="forbid", frozen=True)
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
    normalisation: Normalisation = Normalisation()
    """What makes network input of pixel values."""

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


class Attention(nn.Module):
    """Multi-head self-attention. (N, T, width) -> (N, T, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, width) -> (N, T, width)."""
        n, t, width = x.shape
        q, k, v = (part.reshape(n, t, self.heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=2))
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, width))


class Mlp(nn.Module):
    """Two linear layers with GELU between them, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Transformer block with the norms before attention and MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, width) -> (N, T, width)."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


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
    """A vision transformer with a class token. Tokens are row by row.

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
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=1e-6)
        self._positions: dict[tuple[int | str, ...], Tensor] = {}
        self.apply(initialise)
        patch_weight = self.patch_embed.proj.weight
        nn.init.xavier_uniform_(patch_weight.view(len(patch_weight), -1))  # as a linear layer, He et al. 2022, A.1
        nn.init.normal_(self.cls_token, std=0.02)

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

    def embed(self, x: Tensor, hidden: Tensor | None = None, blank: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) -> patch tokens with their positions (N, T, width), T = H/patch * W/patch.

        hidden: (N, T) bool, patches whose contents are replaced by `blank` (width,).
        """
        grid = self.patch_embed(x)
        tokens = grid.flatten(2).transpose(1, 2)
        if hidden is not None and blank is not None:
            tokens = torch.where(hidden[..., None], blank.to(tokens.dtype), tokens)
        return tokens + self.positions(*grid.shape[2:])

    def embed_patches(self, patches: Tensor, places: Tensor, grid: tuple[int, int]) -> Tensor:
        """`embed` for some patches of each image: their pixels -> tokens with their positions (N, V, width).

        patches: (N, V, patch² * C), pixels row by row, channels innermost; places: (N, V), their numbers in the grid
        of so many rows and columns.
        """
        proj = self.patch_embed.proj
        tokens = F.linear(patches, proj.weight.permute(0, 2, 3, 1).flatten(1), proj.bias)
        return tokens + self.positions(*grid)[0][places]

    def with_class_token(self, tokens: Tensor) -> Tensor:
        """(N, T, width) -> (N, 1 + T, width): the class token goes before the others."""
        first = self.cls_token + self.pos_embed[:, :1] if self.config.position_grid else self.cls_token
        return torch.cat([first.expand(tokens.shape[0], -1, -1), tokens], dim=1)

    def encode(self, tokens: Tensor) -> Tensor:
        """Any subset of embedded tokens (N, T, width) -> class token and the tokens (N, 1 + T, width), normed."""
        x = self.with_class_token(tokens)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def tokens(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) float32 -> class token and patch tokens (N, 1 + T, width), normed."""
        return self.encode(self.embed(x))

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) float32, H and W multiples of the patch -> map (N, width, H/patch, W/patch)."""
        return self._as_map(self.tokens(x), x)

    def features(self, x: Tensor, layers: int) -> Tensor:
        """Images (N, C, H, W) -> the last `layers` blocks' outputs, normed (N, layers * width, H/patch, W/patch).

        The earliest of them comes first; the last `width` channels are `forward`'s.
        """
        out, tokens = [], self.with_class_token(self.embed(x))
        for i, block in enumerate(self.blocks):
            tokens = block(tokens)
            if i >= len(self.blocks) - layers:
                out.append(self._as_map(self.norm(tokens), x))
        return torch.cat(out, dim=1)

    def _as_map(self, tokens: Tensor, x: Tensor) -> Tensor:
        height, width = x.shape[2] // self.config.patch, x.shape[3] // self.config.patch
        return tokens[:, 1:].transpose(1, 2).reshape(x.shape[0], -1, height, width)


def initialise(module: nn.Module) -> None:
    """Weights of a linear layer Xavier-uniform, biases zero, as in MAE (He et al. 2022, A.1)."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


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
