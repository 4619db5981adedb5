"""The encoder: a vision transformer (Dosovitskiy et al. 2021, arXiv:2010.11929) for any grid and channel count.

Parameter names and arithmetic are those of timm's VisionTransformer: its checkpoints load, and the tests compare both
forward passes. The code does not import timm, which costs every stage 2 s and 200 MB. The config fields from
`position_grid` on describe published encoders that `pretrain` can start from: DINOv2 (Oquab et al. 2023,
arXiv:2304.07193; with registers Darcet et al. 2023, arXiv:2309.16588) and DINOv3 (Siméoni et al. 2025,
arXiv:2508.10104).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.models.backbones import FeatureMap
from shared.models.backbones.blocks import Block, initialise
from shared.models.backbones.rope import rotation
from shared.models.config import EncoderConfig

MAX_POSITION_OFFSET = 64
"""In training, the row and column of a crop's first patch are drawn from 0 up to this."""


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
    """Fixed 2-D positions (height * width, channels): sin and cos of the column, then of the row, in patches.

    As in MAE's reference code (He et al. 2022, `util/pos_embed.py`). first: row and column of the first patch;
    dtype: precision of the computation; the result is float32.
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

    In training mode fixed positions start at a random row and column for each batch: the position of a patch within a
    crop carries no meaning, and grids larger than a training crop contain no unseen position.
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
        self._tables: dict[tuple[int | str, ...], Tensor] = {}
        """The positions or rotations computed last."""
        self.apply(initialise)
        patch_weight = self.patch_embed.proj.weight
        nn.init.xavier_uniform_(patch_weight.view(len(patch_weight), -1))  # as a linear layer, He et al. 2022, A.1
        nn.init.normal_(self.cls_token, std=0.02)
        if vit.registers:
            nn.init.normal_(self.reg_token, std=0.02)

    # --- positions ------------------------------------------------------------------------------------------------

    def positions(self, height: int, width: int) -> Tensor:
        """Positions (1, height * width, self.architecture.width) of a grid of height x width patches."""
        if self.architecture.position_grid:
            return _resize_positions(self.pos_embed[:, 1:], self.architecture.position_grid, height, width)
        if torch.compiler.is_exporting():  # sizes are symbols then, and TensorRT does not support float64
            return sincos_positions(height, width, self.architecture.width, dtype=torch.float32)[None]
        first = tuple(torch.randint(MAX_POSITION_OFFSET, (2,)).tolist()) if self.training else (0, 0)
        key = (height, width, *first, str(self.cls_token.device))
        if key not in self._tables:
            table = sincos_positions(height, width, self.architecture.width, (first[0], first[1]))
            self._tables = {key: table[None].to(self.cls_token.device)}
        return self._tables[key]

    def rotations(self, grid: tuple[int, int], indices: Tensor | None = None) -> Tensor | None:
        """Argument `cos_sin` of `rope.rotate` for the patches of a grid (rows, columns); None without `rope`.

        indices: (N, V), numbers of some patches of each image; None: all patches.
        """
        if not self.architecture.rope:
            return None
        head, device = self.architecture.width // self.architecture.heads, self.cls_token.device
        if torch.compiler.is_exporting():
            return rotation(*grid, head)
        key = (*grid, str(device))
        if key not in self._tables:
            with torch.inference_mode(False):  # the table is used in training as well
                self._tables = {key: rotation(*grid, head).to(device)}
        table = self._tables[key]
        return table if indices is None else table[:, indices].unsqueeze(2)

    # --- images to tokens -----------------------------------------------------------------------------------------

    def embed(self, x: Tensor, hidden: Tensor | None = None, mask_token: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) -> patch tokens with their positions (N, T, width), T = H/patch * W/patch.

        hidden: (N, T) bool, patches whose contents are replaced by `mask_token` (width,).
        """
        grid = self.patch_embed(x)
        tokens = grid.flatten(2).transpose(1, 2)
        if hidden is not None and mask_token is not None:
            tokens = torch.where(hidden[..., None], mask_token.to(tokens.dtype), tokens)
        return tokens if self.architecture.rope else tokens + self.positions(*grid.shape[2:])

    def embed_patches(self, patches: Tensor, indices: Tensor, grid: tuple[int, int]) -> Tensor:
        """Embed some patches of each image: pixels -> tokens with their positions (N, V, width).

        patches: (N, V, patch² * C), pixels row by row, channels innermost; indices: (N, V), numbers of the patches in
        the grid (rows, columns).
        """
        proj = self.patch_embed.proj
        tokens = F.linear(patches, proj.weight.permute(0, 2, 3, 1).flatten(1), proj.bias)
        return tokens if self.architecture.rope else tokens + self.positions(*grid)[0][indices]

    def prepend_special_tokens(self, tokens: Tensor) -> Tensor:
        """Put class token and registers first: (N, T, width) -> (N, 1 + registers + T, width)."""
        first = self.cls_token + self.pos_embed[:, :1] if self.architecture.position_grid else self.cls_token
        special = torch.cat([first, self.reg_token], dim=1) if self.architecture.registers else first
        return torch.cat([special.expand(tokens.shape[0], -1, -1), tokens], dim=1)

    def drop_registers(self, tokens: Tensor) -> Tensor:
        """(N, 1 + registers + T, width) -> (N, 1 + T, width)."""
        if not self.architecture.registers:
            return tokens
        return torch.cat([tokens[:, :1], tokens[:, 1 + self.architecture.registers :]], dim=1)

    def encode(self, tokens: Tensor, grid: tuple[int, int], indices: Tensor | None = None) -> Tensor:
        """Apply all blocks to the embedded tokens (N, T, width) of a grid (rows, columns).

        indices: (N, T), numbers of the tokens' patches in the grid; None: all patches. Returns class token and patch
        tokens (N, 1 + T, width), normed.
        """
        x, cos_sin = self.prepend_special_tokens(tokens), self.rotations(grid, indices)
        for block in self.blocks:
            x = block(x, cos_sin)
        return self.drop_registers(self.norm(x))

    def grid(self, x: Tensor) -> tuple[int, int]:
        """Rows and columns of patches of images (N, C, H, W)."""
        return x.shape[2] // self.architecture.patch, x.shape[3] // self.architecture.patch

    def tokens(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) float32 -> class token and patch tokens (N, 1 + T, width), normed."""
        return self.encode(self.embed(x), self.grid(x))

    # --- images to feature maps -----------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) float32, H and W multiples of the patch -> map (N, width, H/patch, W/patch)."""
        return self._as_map(self.tokens(x), x)

    def feature_maps(self, x: Tensor, blocks: int = 1) -> list[FeatureMap]:
        """Images (N, C, H, W) -> normed outputs of the last `blocks` blocks, all with the patch as stride.

        The earliest block comes first; the last map is `forward`'s.
        """
        maps, tokens, cos_sin = [], self.prepend_special_tokens(self.embed(x)), self.rotations(self.grid(x))
        for i, block in enumerate(self.blocks):
            tokens = block(tokens, cos_sin)
            if i >= len(self.blocks) - blocks:
                features = self._as_map(self.drop_registers(self.norm(tokens)), x)
                maps.append(FeatureMap(features, self.architecture.patch))
        return maps

    def features(self, x: Tensor, blocks: int) -> Tensor:
        """Images (N, C, H, W) -> the `feature_maps` joined: (N, blocks * width, H/patch, W/patch)."""
        return torch.cat([features for features, _ in self.feature_maps(x, blocks)], dim=1)

    def _as_map(self, tokens: Tensor, x: Tensor) -> Tensor:
        return tokens[:, 1:].transpose(1, 2).reshape(x.shape[0], -1, *self.grid(x))


def _resize_positions(table: Tensor, side: int, height: int, width: int) -> Tensor:
    """Learned positions (1, side * side, width) -> (1, height * width, width), bicubic, as in DINO and timm."""
    if (height, width) == (side, side):
        return table
    grid = table.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=(height, width), mode="bicubic", antialias=True, align_corners=False)
    return grid.permute(0, 2, 3, 1).reshape(1, height * width, -1)
