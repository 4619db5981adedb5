"""Three feature maps, of strides 8, 16 and 32, from the single map of a vision transformer.

`resample` interpolates or averages the map. `vitdet` learns it: transposed convolutions upwards, maximum downwards, and
a convolution at each stride (Li et al. 2022, ViTDet's simple feature pyramid, arXiv:2203.16527, section 3). A light
convolutional branch can add what patches lose, fine detail (Huang et al. 2025, DEIMv2's spatial tuning adapter,
arXiv:2509.20787, section 3.1).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.models.backbones import FeatureMap
from shared.models.backbones.norms import group_norm
from shared.models.backbones.vit import Encoder
from shared.models.config import DetectorArchitecture, EncoderConfig

STRIDES = (8, 16, 32)
"""px; strides of the maps."""
_DETAIL_WIDTHS = (16, 32, 64, 64)
"""Channels of the detail branch at the strides 4, 8, 16 and 32; DEIMv2's smallest."""


class Pyramid(nn.Module):
    """A vision transformer with feature maps of strides 8, 16 and 32.

    A patch covers 4, 8 or 16 px of the image. For other patches the transformer's input is resized: with patch 14 to
    7/8, so that a patch covers 16 px.
    """

    def __init__(self, config: EncoderConfig, architecture: DetectorArchitecture) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.stride = max(4, 2 ** (config.architecture.patch - 1).bit_length())
        """px of the image between neighbouring tokens."""
        vit_width, width = config.architecture.width, architecture.width
        self.learned = architecture.pyramid == "vitdet"
        if self.learned:
            self.levels = nn.ModuleList(_level(vit_width, width, self.stride, stride) for stride in STRIDES)
        self.detail = DetailBranch(config.input.channels) if architecture.detail else None
        added = _DETAIL_WIDTHS[1:] if architecture.detail else (0, 0, 0)
        self.widths = tuple((width if self.learned else vit_width) + more for more in added)
        """Channels of the feature maps."""

    def feature_maps(self, x: Tensor, blocks: int = 3) -> list[FeatureMap]:
        """Images (N, C, H, W) float32, H and W multiples of 32 -> the last `blocks` of the maps."""
        tokens = self.encoder(self._encoder_input(x))
        maps = [level(tokens) for level in self.levels] if self.learned else self._resample(tokens)
        if self.detail is not None:
            maps = [torch.cat(pair, dim=1) for pair in zip(maps, self.detail(x), strict=True)]
        return [FeatureMap(*pair) for pair in zip(maps, STRIDES, strict=True)][-blocks:]

    def _encoder_input(self, x: Tensor) -> Tensor:
        patch = self.encoder.architecture.patch
        if patch == self.stride:
            return x
        size = [length // self.stride * patch for length in x.shape[2:]]
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=patch < self.stride)

    def _resample(self, tokens: Tensor) -> list[Tensor]:
        """Map (N, width, H / self.stride, W / self.stride) -> maps of the three strides."""
        maps = []
        for stride in STRIDES:
            if stride > self.stride:
                maps.append(F.avg_pool2d(tokens, stride // self.stride))
            elif stride < self.stride:
                scale = self.stride / stride
                maps.append(F.interpolate(tokens, scale_factor=scale, mode="bilinear", align_corners=False))
            else:
                maps.append(tokens)
        return maps


def _level(inside: int, width: int, stride: int, new_stride: int) -> nn.Sequential:
    """Map (N, inside, H / stride, W / stride) -> (N, width, H / new_stride, W / new_stride), as in ViTDet."""
    layers: list[nn.Module] = []
    while stride > new_stride:
        layers += [nn.ConvTranspose2d(inside, inside // 2, 2, 2), group_norm(inside // 2), nn.GELU()]
        stride, inside = stride // 2, inside // 2
    if stride < new_stride:
        layers.append(nn.MaxPool2d(new_stride // stride))
    layers += [nn.Conv2d(inside, width, 1, bias=False), group_norm(width)]
    layers += [nn.Conv2d(width, width, 3, padding=1, bias=False), group_norm(width)]
    return nn.Sequential(*layers)


class DetailBranch(nn.Module):
    """Convolutions of stride 2: images (N, C, H, W) -> maps of 32, 64 and 64 channels and strides 8, 16 and 32."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, *widths = _DETAIL_WIDTHS
        self.stem = nn.Sequential(
            nn.Conv2d(channels, first, 3, 2, 1, bias=False), group_norm(first), nn.GELU(), nn.MaxPool2d(3, 2, 1)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inside, width, 3, 2, 1, bias=False), group_norm(width))
            for inside, width in zip((first, *widths), widths, strict=False)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images (N, C, H, W) -> maps (N, 32, H/8, W/8), (N, 64, H/16, W/16), (N, 64, H/32, W/32)."""
        maps, x = [], self.stem(x)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
            x = F.gelu(x)
        return maps
