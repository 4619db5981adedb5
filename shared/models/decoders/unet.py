"""A U-Net (Ronneberger et al. 2015, arXiv:1505.04597) that receives a transformer's tokens at its deepest level.

Tokens are `patch` px apart, too coarse for the border of a cell. Most of the decoder works at half resolution and
below, after a pixel unshuffle (Shi et al. 2016, arXiv:1609.05158): every pixel contributes at a quarter of the cost. A
narrow path at full resolution draws the border (RESULTS.md, "Segmentor").
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_GROUPS = 8
"""Groups of the group norms."""
_FULL_WIDTH = 8
"""Channels at full resolution."""


class ConvBlock(nn.Sequential):
    """Two 3 x 3 convolutions with group norm and SiLU, the first with a stride. (N, C, H, W) -> (N, out, H/s, W/s)."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels, out, 3, stride, 1),
            nn.GroupNorm(_GROUPS, out),
            nn.SiLU(),
            nn.Conv2d(out, out, 3, 1, 1),
            nn.GroupNorm(_GROUPS, out),
            nn.SiLU(),
        )


class UNet(nn.Module):
    """Images and their token maps to logits, one per pixel and map."""

    def __init__(self, channels: int, token_width: int, width: int, maps: int) -> None:
        """channels: of the images; token_width: features of a token; width: channels at half resolution."""
        super().__init__()
        w = width
        self.down_half = ConvBlock(4 * channels, w)
        self.down_quarter = ConvBlock(w, 2 * w, stride=2)
        self.down_eighth = ConvBlock(2 * w, 3 * w, stride=2)
        self.project = nn.Conv2d(token_width, 3 * w, 1)
        self.fuse = ConvBlock(6 * w, 3 * w)
        self.up_quarter = ConvBlock(3 * w + 2 * w, 2 * w)
        self.up_half = ConvBlock(2 * w + w, w)
        self.full = nn.Sequential(
            nn.Conv2d(channels, _FULL_WIDTH, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(_FULL_WIDTH, _FULL_WIDTH, 3, padding=1),
            nn.SiLU(),
        )
        self.up_full = nn.Conv2d(w, 4 * _FULL_WIDTH, 1)
        self.head = nn.Sequential(
            nn.Conv2d(2 * _FULL_WIDTH, 2 * _FULL_WIDTH, 3, padding=1), nn.SiLU(), nn.Conv2d(2 * _FULL_WIDTH, maps, 1)
        )

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Images (N, C, H, W), token maps (N, token_width, H/patch, W/patch) -> logits (N, maps, H, W)."""
        x = x.contiguous(memory_format=torch.channels_last)
        half = self.down_half(F.pixel_unshuffle(x, 2))
        quarter = self.down_quarter(half)
        eighth = self.down_eighth(quarter)
        deep = self.fuse(torch.cat([eighth, _resize_like(self.project(tokens), eighth)], dim=1))
        deep = self.up_quarter(torch.cat([_resize_like(deep, quarter), quarter], dim=1))
        deep = self.up_half(torch.cat([_resize_like(deep, half), half], dim=1))
        return self.head(torch.cat([F.pixel_shuffle(self.up_full(deep), 2), self.full(x)], dim=1))


def _resize_like(x: Tensor, like: Tensor) -> Tensor:
    """Resize (N, C, h, w) bilinearly to the height and width of `like`."""
    if x.shape[2:] == like.shape[2:]:
        return x
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)
