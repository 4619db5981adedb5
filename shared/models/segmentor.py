"""The segmentor: a vision transformer recognises what a pixel belongs to, a U-Net draws the border."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.models.backbones.packed_linear import pack_linear_layers
from shared.models.backbones.vit import Encoder
from shared.models.config import SegmentorConfig
from shared.models.decoders.unet import UNet

SIDE_MULTIPLE = 16
"""px; height and width of a segmentor's input, after downsampling, are multiples of it."""


class Segmentor(nn.Module):
    """Images to logits, pixel by pixel: one map for each of the target's, foreground first."""

    def __init__(self, config: SegmentorConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.decoder = UNet(
            config.input.channels, config.architecture.encoder.width, config.architecture.width, len(config.maps)
        )
        self.to(memory_format=torch.channels_last)  # convolutions of few channels: twice as fast on a CPU

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) float32, normalised, H and W multiples of 16 -> logits (N, maps, H, W)."""
        return self.decode(x, self.encoder(x))

    def of_target(self, target: str) -> "Segmentor":
        """Return a segmentor of another training target: the same weights, a new last layer where the maps differ."""
        if target == self.config.architecture.target:
            return self
        architecture = self.config.architecture.model_copy(update={"target": target})
        other = Segmentor(self.config.model_copy(update={"architecture": architecture}))
        weights = other.state_dict()
        kept = {name: tensor for name, tensor in self.state_dict().items() if tensor.shape == weights[name].shape}
        other.load_state_dict(weights | kept)
        return other

    def decode(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Images (N, C, H, W) and their token maps (N, width, H/patch, W/patch) -> logits (N, maps, H, W)."""
        return self.decoder(x, tokens)


class ProbabilityMaps(nn.Module):
    """A segmentor between downsampling and upsampling, with probabilities instead of logits."""

    def __init__(self, segmentor: Segmentor) -> None:
        super().__init__()
        self.segmentor, self.downsample = segmentor, segmentor.config.input.downsample

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) float32, normalised, H and W multiples of 16 * downsample -> (N, maps, H, W) in [0, 1]."""
        small = F.avg_pool2d(image, self.downsample) if self.downsample > 1 else image
        return torch.sigmoid(upsample(self.segmentor(small), self.downsample))


def upsample(logits: Tensor, factor: int) -> Tensor:
    """Logits (N, maps, H, W) of downsampled images -> (N, maps, H * factor, W * factor), bilinear."""
    if factor == 1:
        return logits
    return F.interpolate(logits, scale_factor=factor, mode="bilinear", align_corners=False)


def inference_copy(segmentor: Segmentor, device: str) -> Segmentor:
    """Copy a segmentor to `device`, in evaluation mode; on a CPU pack its encoder's linear layers."""
    copied = copy.deepcopy(segmentor).eval()
    if device == "cpu":
        copied.encoder = pack_linear_layers(copied.encoder)
    return copied.to(device)
