"""Prepare a model for export: normalised images to one array, in a single graph."""

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from shared.models.backbones.vit import Encoder
from shared.models.config import EncoderConfig, SegmentorConfig
from shared.models.load import load_model
from shared.models.network import Network, as_network
from shared.models.segmentor import SIDE_MULTIPLE, ProbabilityMaps, Segmentor, inference_copy

INPUT = "image"
"""Name of the exported graph's input."""


class DownsampledFeatures(nn.Module):
    """An encoder with the downsampling of its input."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.downsample = encoder, encoder.config.input.downsample

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) float32, normalised -> (N, width, H/s, W/s), s = patch * downsample."""
        return self.encoder(F.avg_pool2d(image, self.downsample) if self.downsample > 1 else image)


@dataclass(frozen=True)
class Exportable:
    """A model prepared for export."""

    module: nn.Module
    """(N, C, H, W) float32, normalised -> the output. In evaluation mode, on the CPU."""
    output: str
    """Name of the output: `maps` or `features`."""
    config: EncoderConfig | SegmentorConfig
    multiple: int
    """px; height and width of the input must be multiples of it."""

    @property
    def segmentor(self) -> SegmentorConfig | None:
        """The config of a segmentor; None for an encoder."""
        return self.config if isinstance(self.config, SegmentorConfig) else None

    def network(self, device: str) -> Network:
        """The model as the other stages apply it."""
        module = copy.deepcopy(self.module)
        if isinstance(module, ProbabilityMaps):
            module.segmentor = inference_copy(module.segmentor, device)
        return as_network(module.to(device), device)


def load_exportable(folder: Path) -> Exportable:
    """Prepare the model in `folder`. Raises ArtifactError if it is neither a segmentor nor an encoder."""
    model = load_model(folder, Segmentor, Encoder)
    if isinstance(model, Segmentor):
        segmentor = model.config
        multiple = math.lcm(SIDE_MULTIPLE, segmentor.architecture.encoder.patch) * segmentor.input.downsample
        return Exportable(ProbabilityMaps(model).eval(), "maps", segmentor, multiple)
    config = model.config
    multiple = config.architecture.patch * config.input.downsample
    return Exportable(DownsampledFeatures(model).eval(), "features", config, multiple)
