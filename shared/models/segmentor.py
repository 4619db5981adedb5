"""The segmentor: a vision transformer that says what, and a small convolutional network that says where.

The transformer's tokens lie `patch` px apart, too coarse for the border of a cell. So a U-Net (Ronneberger et al.
2015, arXiv:1505.04597) with a fraction of its weights works beside it, and takes the tokens in at its deepest level.
Most of it works at half resolution and below, behind a pixel unshuffle (Shi et al. 2016, arXiv:1609.05158): every pixel
takes part at a quarter of the cost. A narrow path at full resolution draws the border; it made the masks of tissue
sections a point of Dice better.
"""

import copy
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import Tensor, nn

from shared.instances.border_refinement import Sharpen
from shared.instances.postprocess import SADDLE
from shared.models.backbones.packed_linear import packed
from shared.models.backbones.vit import Encoder, EncoderConfig, load_exactly
from shared.models.files import load_config, load_state, save_model

GROUPS = 8
FULL = 8
"""Channels at full resolution."""
FOREGROUND, DEPTH = "foreground", "depth"


class SegmentorConfig(BaseModel):
    """`config.json` of a segmentor."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["segmentor"] = "segmentor"
    encoder: EncoderConfig
    """Its transformer; the images' channels and normalisation are written there."""
    width: PositiveInt = 16
    """Channels at half resolution; 2 and 3 times as many at a quarter and an eighth. A multiple of 8."""
    heads: tuple[str, ...] = ("foreground",)
    """What the output maps mean, in order; `foreground` comes first. `depth`: see `shared.instances.watershed`."""

    saddle: float = SADDLE
    """See `shared.instances.watershed.split_touching`; learned from labels where there are some."""
    sure: float = Field(default=0.0, ge=0, le=1)
    """The foreground probability that an object reaches somewhere, see `shared.instances.object_filters`; learned in training."""
    sharpen: Sharpen = "none"
    """How the masks' borders move to where the image changes, see `shared.instances.border_refinement`."""

    @property
    def maps(self) -> int:
        """How many maps instances are made of: foreground, and where it is the second one, depth."""
        return 2 if self.heads[1:2] == (DEPTH,) else 1


class ConvBlock(nn.Sequential):
    """Two 3 x 3 convolutions with group norm and SiLU, the first with a stride. (N, C, H, W) -> (N, out, H/s, W/s)."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels, out, 3, stride, 1),
            nn.GroupNorm(GROUPS, out),
            nn.SiLU(),
            nn.Conv2d(out, out, 3, 1, 1),
            nn.GroupNorm(GROUPS, out),
            nn.SiLU(),
        )


class Segmentor(nn.Module):
    """Images to logits, pixel by pixel."""

    def __init__(self, config: SegmentorConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        w = config.width
        self.down_half = ConvBlock(4 * config.encoder.channels, w)
        self.down_quarter = ConvBlock(w, 2 * w, stride=2)
        self.down_eighth = ConvBlock(2 * w, 3 * w, stride=2)
        self.project = nn.Conv2d(config.encoder.width, 3 * w, 1)
        self.fuse = ConvBlock(6 * w, 3 * w)
        self.up_quarter = ConvBlock(3 * w + 2 * w, 2 * w)
        self.up_half = ConvBlock(2 * w + w, w)
        self.full = nn.Sequential(
            nn.Conv2d(config.encoder.channels, FULL, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(FULL, FULL, 3, padding=1),
            nn.SiLU(),
        )
        self.up_full = nn.Conv2d(w, 4 * FULL, 1)
        self.head = nn.Sequential(
            nn.Conv2d(2 * FULL, 2 * FULL, 3, padding=1), nn.SiLU(), nn.Conv2d(2 * FULL, len(config.heads), 1)
        )
        self.to(memory_format=torch.channels_last)  # convolutions of few channels: twice as fast on a CPU

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float32, normalised, H and W multiples of 16 -> logits (N, heads, H, W)."""
        return self.decode(x, self.encoder(x))

    def decode(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Images (N, C, H, W) and their token maps (N, width, H/patch, W/patch) -> logits (N, heads, H, W)."""
        x = x.contiguous(memory_format=torch.channels_last)
        half = self.down_half(F.pixel_unshuffle(x, 2))
        quarter = self.down_quarter(half)
        eighth = self.down_eighth(quarter)
        deep = self.fuse(torch.cat([eighth, _to_size(self.project(tokens), eighth)], dim=1))
        deep = self.up_quarter(torch.cat([_to_size(deep, quarter), quarter], dim=1))
        deep = self.up_half(torch.cat([_to_size(deep, half), half], dim=1))
        return self.head(torch.cat([F.pixel_shuffle(self.up_full(deep), 2), self.full(x)], dim=1))


class MapsOf(nn.Module):
    """A segmentor with all that belongs to it on either side: shrinking, enlarging, and probabilities for logits."""

    def __init__(self, segmentor: nn.Module, shrink: int, maps: int) -> None:
        super().__init__()
        self.segmentor, self.shrink, self.maps = segmentor, shrink, maps

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) float32, normalised, H and W multiples of 16 * shrink -> (N, maps, H, W) in [0, 1]."""
        small = F.avg_pool2d(image, self.shrink) if self.shrink > 1 else image
        return torch.sigmoid(enlarged(self.segmentor(small)[:, : self.maps], self.shrink))


def enlarged(logits: Tensor, factor: int) -> Tensor:
    """Logits (N, heads, H, W) of shrunk images -> (N, heads, H * factor, W * factor), bilinear."""
    if factor == 1:
        return logits
    return F.interpolate(logits, scale_factor=factor, mode="bilinear", align_corners=False)


def _to_size(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear resize of (N, C, h, w) to the height and width of `like`."""
    if x.shape[2:] == like.shape[2:]:
        return x
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)


def for_prediction(segmentor: Segmentor, device: str) -> Segmentor:
    """A copy on `device`, in evaluation mode; on a CPU with its encoder's linear layers packed."""
    fast = copy.deepcopy(segmentor).eval()
    if device == "cpu":
        fast.encoder = packed(fast.encoder)
    return fast.to(device)


def save_segmentor(folder: Path, segmentor: Segmentor, config: SegmentorConfig, card: str) -> None:
    """Write the payload of a Model artifact of kind segmentor."""
    save_model(folder, segmentor.state_dict(), config, card)


def load_segmentor(folder: Path) -> tuple[Segmentor, SegmentorConfig]:
    """The segmentor that `save_segmentor` wrote, in evaluation mode on the CPU.

    Raises ArtifactError where the folder holds a model of another kind, or weights that do not fit its config.
    """
    config = load_config(folder, SegmentorConfig)
    segmentor = Segmentor(config)
    load_exactly(segmentor, load_state(folder), folder)
    return segmentor.eval(), config
