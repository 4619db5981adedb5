"""A ResNet (He et al. 2016, arXiv:1512.03385) for any number of channels, without pooling and linear layer at the end.

Parameter names and arithmetic are torchvision's: its weights load, and timm's of the variant "d" (He et al. 2019,
arXiv:1812.01187). The tests compare both forward passes.
"""

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from shared.models.backbones import FeatureMap
from shared.models.backbones.norms import NORMS
from shared.models.config import ResNetArchitecture

BLOCKS: dict[int, tuple[int, int, int, int]] = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
"""Depth -> number of residual blocks in each stage."""
_WIDTHS, _STEM = (64, 128, 256, 512), 64
Norm = Callable[[int], nn.Module]


class _Residual(nn.Module):
    """Residual connection around the layers of a block, whose output is `branch`."""

    def __init__(self, inside: int, out: int, stride: int, norm: Norm, variant: str) -> None:
        super().__init__()
        changes = stride > 1 or inside != out or variant == "rt_detr"
        self.downsample = _shortcut(inside, out, stride, norm, variant) if changes else None

    def add_input(self, x: Tensor, branch: Tensor) -> Tensor:
        """Input (N, inside, H, W), branch (N, out, H / stride, W / stride) -> rectified sum, as branch."""
        return F.relu(branch + (x if self.downsample is None else self.downsample(x)))


class BasicBlock(_Residual):
    """Two 3 x 3 convolutions. (N, inside, H, W) -> (N, width, H / stride, W / stride)."""

    expansion = 1

    def __init__(self, inside: int, width: int, stride: int, norm: Norm, variant: str) -> None:
        super().__init__(inside, width, stride, norm, variant)
        self.conv1 = nn.Conv2d(inside, width, 3, stride, 1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = norm(width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inside, H, W) -> (N, width, H / stride, W / stride)."""
        return self.add_input(x, self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class Bottleneck(_Residual):
    """A 3 x 3 convolution between two of 1 x 1. (N, inside, H, W) -> (N, 4 * width, H / stride, W / stride)."""

    expansion = 4

    def __init__(self, inside: int, width: int, stride: int, norm: Norm, variant: str) -> None:
        super().__init__(inside, 4 * width, stride, norm, variant)
        self.conv1 = nn.Conv2d(inside, width, 1, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = norm(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = norm(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inside, H, W) -> (N, 4 * width, H / stride, W / stride)."""
        inner = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return self.add_input(x, self.bn3(self.conv3(inner)))


class ResNet(nn.Module):
    """Feature maps of strides 8, 16 and 32."""

    def __init__(self, architecture: ResNetArchitecture, channels: int) -> None:
        super().__init__()
        self.architecture = architecture
        norm: Norm = NORMS[architecture.norm]
        self.conv1 = _stem(channels, norm, architecture.variant)
        self.bn1 = norm(_STEM)
        block = Bottleneck if architecture.depth >= 50 else BasicBlock
        inside = _STEM
        for i, (width, count) in enumerate(zip(_WIDTHS, BLOCKS[architecture.depth], strict=True)):
            make = partial(block, norm=norm, variant=architecture.variant)
            first = make(inside, width, 2 if i else 1)
            inside = width * block.expansion
            later = partial(make, inside, width, 1, variant="plain")  # the variants differ in the first blocks
            self.add_module(f"layer{i + 1}", nn.Sequential(first, *(later() for _ in range(count - 1))))
        self.widths = tuple(width * block.expansion for width in _WIDTHS[1:])
        """Channels of the feature maps."""
        self.apply(_initialise)

    def feature_maps(self, x: Tensor, blocks: int = 3) -> list[FeatureMap]:
        """Images (N, C, H, W) float32 -> outputs of the last `blocks` of the stages of strides 4, 8, 16 and 32."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        maps = []
        for i in range(4):
            x = self.get_submodule(f"layer{i + 1}")(x)
            maps.append(FeatureMap(x, 4 * 2**i))
        return maps[-blocks:]


def _stem(channels: int, norm: Norm, variant: str) -> nn.Module:
    """The convolution of stride 2 before `bn1`."""
    if variant == "plain":
        return nn.Conv2d(channels, _STEM, 7, 2, 3, bias=False)
    half = _STEM // 2
    return nn.Sequential(
        nn.Conv2d(channels, half, 3, 2, 1, bias=False),
        norm(half),
        nn.ReLU(),
        nn.Conv2d(half, half, 3, 1, 1, bias=False),
        norm(half),
        nn.ReLU(),
        nn.Conv2d(half, _STEM, 3, 1, 1, bias=False),
    )


def _shortcut(inside: int, out: int, stride: int, norm: Norm, variant: str) -> nn.Sequential:
    """Change the width and the stride of a block's input."""
    if variant == "plain":
        return nn.Sequential(nn.Conv2d(inside, out, 1, stride, bias=False), norm(out))
    pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
    return nn.Sequential(pool, nn.Conv2d(inside, out, 1, bias=False), norm(out))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
