"""The encoder: a vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929) for any grid and any channel count.

Parameter names and arithmetic are those of timm's VisionTransformer, so that its checkpoints fit and its forward pass
checks this one in the tests. They are written out here because importing timm costs every stage 2 s and 200 MB. The
settings below its `position_grid` are those of others' encoders, which `pretrain` takes in: DINOv2 (Oquab et al. 2023,
arXiv:2304.07193; with registers Darcet et al. 2023, arXiv:2309.16588) and DINOv3 (Siméoni et al. 2025,
arXiv:2508.10104).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.models.backbones.blocks import Block, initialise
from shared.models.backbones.rope import rotation
from shared.models.config import EncoderConfig

FIRST_POSITIONS = 64
"""In training, the first patch of a crop is at a random one of so many rows and columns."""


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
        self.architecture = vit = config.architecture
        self.patch_embed = PatchEmbed(config.input.channels, vit.width, vit.patch)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, vit.width))
        if vit.position_grid:
            self.pos_embed = nn.Parameter(torch.zeros(1, 1 + vit.position_grid**2, vit.width))
        if vit.registers:
            self.reg_token = nn.Parameter(torch.zeros(1, vit.registers, vit.width))
        self.blocks = nn.ModuleList(
            Block(vit.width, vit.heads, layer_scale=vit.layer_scale, norm_eps=vit.norm_eps) for _ in range(vit.depth)
        )
        self.norm = nn.LayerNorm(vit.width, eps=vit.norm_eps)
        self._positions: dict[tuple[int | str, ...], Tensor] = {}
        self.apply(initialise)
        patch_weight = self.patch_embed.proj.weight
        nn.init.xavier_uniform_(patch_weight.view(len(patch_weight), -1))  # as a linear layer, He et al. 2022, A.1
        nn.init.normal_(self.cls_token, std=0.02)
        if vit.registers:
            nn.init.normal_(self.reg_token, std=0.02)

    def positions(self, height: int, width: int) -> Tensor:
        """Positions (1, height * width, self.architecture.width) of a grid of so many patches."""
        if self.architecture.position_grid:
            return _resized(self.pos_embed[:, 1:], self.architecture.position_grid, height, width)
        if torch.compiler.is_exporting():  # sizes are symbols then, and float64 is more than TensorRT knows
            return sincos_positions(height, width, self.architecture.width, dtype=torch.float32)[None]
        first = tuple(torch.randint(FIRST_POSITIONS, (2,)).tolist()) if self.training else (0, 0)
        key = (height, width, *first, str(self.cls_token.device))
        if key not in self._positions:
            made = sincos_positions(height, width, self.architecture.width, (first[0], first[1]))
            self._positions = {key: made[None].to(self.cls_token.device)}
        return self._positions[key]

    def turns(self, grid: tuple[int, int], places: Tensor | None = None) -> Tensor | None:
        """What `shared.models.backbones.rope.rotated` turns the patches of a grid (rows, columns) by; None without `rope`.

        places: (N, V), numbers of some patches of each image; None: all patches.
        """
        if not self.architecture.rope:
            return None
        head, device = self.architecture.width // self.architecture.heads, self.cls_token.device
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
        return tokens if self.architecture.rope else tokens + self.positions(*grid.shape[2:])

    def embed_patches(self, patches: Tensor, places: Tensor, grid: tuple[int, int]) -> Tensor:
        """`embed` for some patches of each image: their pixels -> tokens with their positions (N, V, width).

        patches: (N, V, patch² * C), pixels row by row, channels innermost; places: (N, V), their numbers in the grid
        of so many rows and columns.
        """
        proj = self.patch_embed.proj
        tokens = F.linear(patches, proj.weight.permute(0, 2, 3, 1).flatten(1), proj.bias)
        return tokens if self.architecture.rope else tokens + self.positions(*grid)[0][places]

    def with_own_tokens(self, tokens: Tensor) -> Tensor:
        """(N, T, width) -> (N, 1 + registers + T, width): class token and registers go before the others."""
        first = self.cls_token + self.pos_embed[:, :1] if self.architecture.position_grid else self.cls_token
        own = torch.cat([first, self.reg_token], dim=1) if self.architecture.registers else first
        return torch.cat([own.expand(tokens.shape[0], -1, -1), tokens], dim=1)

    def without_registers(self, tokens: Tensor) -> Tensor:
        """(N, 1 + registers + T, width) -> (N, 1 + T, width)."""
        if not self.architecture.registers:
            return tokens
        return torch.cat([tokens[:, :1], tokens[:, 1 + self.architecture.registers :]], dim=1)

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
        return x.shape[2] // self.architecture.patch, x.shape[3] // self.architecture.patch

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
