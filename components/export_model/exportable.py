"""Prepare a model for export: normalised images to one array, in a single graph."""

import copy
import math
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from shared.models.backbones.vit import Encoder
from shared.models.config import EncoderConfig, SegmentorConfig
from shared.models.load import load_model
from shared.models.network import OUTPUTS, Network, as_network
from shared.models.runtimes.metadata import GraphMetadata, model_digest
from shared.models.runtimes.pytorch import DownsampledFeatures
from shared.models.segmentor import SIDE_MULTIPLE, ProbabilityMaps, Segmentor, inference_copy

OPSET = 18
"""The first opset with antialiased resizing, which learned positions need."""


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

    metadata: GraphMetadata

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
        return Exportable(
            ProbabilityMaps(model).eval(), "maps", segmentor, multiple, _metadata(folder, model.config, multiple)
        )
    config = model.config
    multiple = config.architecture.patch * config.input.downsample
    return Exportable(
        DownsampledFeatures(model).eval(), "features", config, multiple, _metadata(folder, config, multiple)
    )


def _metadata(folder: Path, config: EncoderConfig | SegmentorConfig, multiple: int) -> GraphMetadata:
    return GraphMetadata(
        kind=config.kind,
        model_digest=model_digest(folder),
        opset=OPSET,
        channels=config.input.channels,
        tile=128 * config.input.downsample,
        multiple=multiple,
        outputs=OUTPUTS[config.kind],
        classes=config.maps if isinstance(config, SegmentorConfig) else (),
        normalisation=config.input.normalisation,
        postprocessing=config.postprocessing.model_dump(mode="json"),
        inside=("sigmoid",) if isinstance(config, SegmentorConfig) else (),
        outside=("normalisation", "tiles", "instances") if isinstance(config, SegmentorConfig) else ("normalisation",),
    )
