"""Run a model by PyTorch: for each kind the module whose outputs `shared.models.network.OUTPUTS` names."""

from collections.abc import Callable
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from shared.models.backbones.packed_linear import pack_linear_layers
from shared.models.backbones.vit import Encoder
from shared.models.config import ClassifierConfig, DetectorConfig, EncoderConfig, SegmentorConfig
from shared.models.files import load_config
from shared.models.load import load_model
from shared.models.network import Network, as_network
from shared.models.segmentor import ProbabilityMaps, Segmentor


class DownsampledFeatures(nn.Module):
    """An encoder with the downsampling of its input."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.downsample = encoder, encoder.config.input.downsample

    def forward(self, image: Tensor) -> Tensor:
        """(N, C, H, W) float32, normalised -> (N, width, H/s, W/s), s = patch * downsample."""
        return self.encoder(F.avg_pool2d(image, self.downsample) if self.downsample > 1 else image)


def load_output_module(folder: Path) -> nn.Module:
    """Load the model in `folder` as the module that makes the outputs of its kind, in evaluation mode on the CPU.

    Raises ArtifactError where the model is absent, or where its files cannot be read.
    """
    kind = load_config(folder, EncoderConfig, SegmentorConfig, ClassifierConfig, DetectorConfig).kind  # type: ignore[attr-defined]
    return _LOADERS[kind](folder).eval()


def _encoder(folder: Path) -> nn.Module:
    return DownsampledFeatures(load_model(folder, Encoder))


def _segmentor(folder: Path) -> nn.Module:
    return ProbabilityMaps(load_model(folder, Segmentor))


def _classifier(folder: Path) -> nn.Module:
    from shared.models.classifier import Classifier, ClassProbabilities

    return ClassProbabilities(load_model(folder, Classifier))


def _detector(folder: Path) -> nn.Module:
    from shared.models.detector import Detector, ScoredBoxes

    return ScoredBoxes(load_model(folder, Detector))


_LOADERS: dict[str, Callable[[Path], nn.Module]] = {
    "encoder": _encoder,
    "segmentor": _segmentor,
    "classifier": _classifier,
    "detector": _detector,
}
"""Kind of model -> loader. Each imports its network when it is called: that of a detector takes seconds."""


def pytorch_network(module: nn.Module, device: str) -> Network:
    """Move the module of `load_output_module` to `device`; on a CPU pack the linear layers of its encoder."""
    if device == "cpu":
        for owner in list(module.modules()):
            for name, child in list(owner.named_children()):
                if isinstance(child, Encoder):
                    setattr(owner, name, pack_linear_layers(child))
    return as_network(module.to(device), device)
