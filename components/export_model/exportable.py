"""A model as what is exported: images in, one array out, everything between in one graph."""

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from shared.models.backbones.vit import Encoder, EncoderConfig, load_encoder
from shared.models.files import read_config
from shared.models.network import Network, as_network
from shared.models.segmentor import MapsOf, Segmentor, SegmentorConfig, for_prediction, load_segmentor
from shared.system.errors import ArtifactError

INPUT = "image"
SEGMENTOR_STEP = 16
"""px; a segmentor takes sides that are multiples of it, once shrunk."""


class FeaturesOf(nn.Module):
    """An encoder with the shrinking before it."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.shrink = encoder, encoder.config.shrink

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) float32, normalised -> (N, width, H/s, W/s), s = patch * shrink."""
        return self.encoder(F.avg_pool2d(image, self.shrink) if self.shrink > 1 else image)


@dataclass(frozen=True)
class Subject:
    """What is exported."""

    module: nn.Module
    """(N, C, H, W) float32, normalised -> the output; in evaluation mode, on the CPU."""
    output: str
    """Name of the output: maps or features."""
    encoder: EncoderConfig
    segmentor: SegmentorConfig | None
    """None for an encoder."""
    multiple: int
    """px; H and W of the input are multiples of it."""

    def network(self, device: str) -> Network:
        """As every other stage applies it."""
        module = copy.deepcopy(self.module)
        if isinstance(module, MapsOf):
            module.segmentor = for_prediction(cast("Segmentor", module.segmentor), device)
        return as_network(module.to(device), device)


def subject_of(folder: Path) -> Subject:
    """The model in `folder`. Raises ArtifactError where it is neither a segmentor nor an encoder."""
    kind = read_config(folder)["kind"]
    if kind == "segmentor":
        segmentor, config = load_segmentor(folder)
        encoder = config.encoder
        whole = MapsOf(segmentor, encoder.shrink, config.maps).eval()
        return Subject(whole, "maps", encoder, config, math.lcm(SEGMENTOR_STEP, encoder.patch) * encoder.shrink)
    if kind == "encoder":
        alone, encoder = load_encoder(folder)
        return Subject(FeaturesOf(alone).eval(), "features", encoder, None, encoder.patch * encoder.shrink)
    raise ArtifactError(f"{folder}: a model of kind {kind!r} cannot be exported; give a segmentor or an encoder")
