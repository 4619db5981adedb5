"""Prepare a model for export: normalised images to the outputs of its kind, in a single graph."""

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from shared.models import detector
from shared.models.box_predictor import DEFAULT_TILE_PX, positions
from shared.models.config import ClassifierConfig, DetectorConfig, EncoderConfig, SegmentorConfig
from shared.models.files import load_config
from shared.models.network import OUTPUTS, Network
from shared.models.runtimes.metadata import GraphMetadata, model_digest
from shared.models.runtimes.pytorch import load_output_module, pytorch_network
from shared.models.runtimes.runtime import NetworkConfig
from shared.models.segmentor import SIDE_MULTIPLE

OPSET = 18
"""The first opset with antialiased resizing, which learned positions need."""
_INSIDE = {
    "encoder": ("downsampling",),
    "segmentor": ("downsampling", "upsampling", "sigmoid"),
    "classifier": ("softmax with temperature", "distance from the training images"),
    "detector": ("downsampling", "sigmoid", "box corners", "choice of the queries of highest score"),
}
"""Kind -> what its graph computes besides the network."""
_OUTSIDE = {
    "encoder": (),
    "segmentor": ("tiles", "instances"),
    "classifier": ("resizing", "thresholds"),
    "detector": ("tiles and their merging", "score threshold"),
}
"""Kind -> what, besides the normalisation, is left to the program that runs the graph."""


@dataclass(frozen=True)
class Exportable:
    """A model prepared for export."""

    module: nn.Module
    """(N, C, H, W) float32, normalised -> the outputs. In evaluation mode, on the CPU."""
    config: NetworkConfig
    metadata: GraphMetadata

    @property
    def kind(self) -> str:
        """Kind of the model."""
        return self.config.kind

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return self.metadata.outputs

    def network(self, device: str) -> Network:
        """The model as the other stages apply it."""
        return pytorch_network(copy.deepcopy(self.module), device)


def load_exportable(folder: Path, tile: int = 128) -> Exportable:
    """Prepare the model in `folder`; tile: side of the tiles of an encoder or segmentor, after downsampling, px.

    Raises ArtifactError where the model is absent or cannot be read.
    """
    config: Any = load_config(folder, EncoderConfig, SegmentorConfig, ClassifierConfig, DetectorConfig)
    multiple, side = _sides(config, tile)
    metadata = GraphMetadata(
        kind=config.kind,
        model_digest=model_digest(folder),
        opset=OPSET,
        channels=config.input.channels,
        tile=side,
        multiple=multiple,
        outputs=OUTPUTS[config.kind],
        classes=_classes(config),
        normalisation=config.input.normalisation,
        postprocessing=config.postprocessing.model_dump(mode="json"),
        inside=tuple(name for name in _INSIDE[config.kind] if config.input.downsample > 1 or "sampling" not in name),
        outside=_outside(config),
    )
    return Exportable(load_output_module(folder), config, metadata)


def _outside(config: NetworkConfig) -> tuple[str, ...]:
    """What is left to the program that runs the graph."""
    limits = "fixed limits" if config.input.normalisation.fixed else "percentiles of the whole image"
    factor = config.input.magnification
    enlarged = (f"enlarging images {factor} times",) if factor > 1 else ()
    return *enlarged, f"normalisation by {limits}", *_OUTSIDE[config.kind]


def _sides(config: NetworkConfig, tile: int) -> tuple[int | None, int]:
    """Of what the sides of the input are multiples, None where they are fixed, and the side of a tile; px."""
    downsample = config.input.downsample
    if isinstance(config, ClassifierConfig):
        assert config.input.crop_px, "the config of a classifier states crop_px"
        return None, config.input.crop_px
    if isinstance(config, DetectorConfig):
        multiple, tile = detector.SIDE_MULTIPLE, config.input.crop_px or DEFAULT_TILE_PX
        while positions(tile) < config.architecture.queries:
            tile += multiple
    elif isinstance(config, SegmentorConfig):
        multiple = math.lcm(SIDE_MULTIPLE, config.architecture.encoder.patch)
    else:
        multiple = config.architecture.patch
    return multiple * downsample, -(-tile // multiple) * multiple * downsample


def _classes(config: NetworkConfig) -> tuple[str, ...]:
    if isinstance(config, SegmentorConfig):
        return config.maps
    return () if isinstance(config, EncoderConfig) else config.architecture.classes
