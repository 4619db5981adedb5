"""Open a Model artifact of any kind.

>>> segmentor = load_model(folder, Segmentor)
>>> model = load_model(folder, Encoder, Segmentor)  # either; `model.config` states which
"""

from pathlib import Path
from typing import Any, TypeVar, overload

from torch import Tensor, nn

from shared.models.backbones.vit import Encoder
from shared.models.classifier import Classifier
from shared.models.config import (
    ClassifierConfig,
    DetectorConfig,
    EncoderConfig,
    ModelInput,
    ResNetArchitecture,
    SegmentorConfig,
    VitArchitecture,
)
from shared.models.detector import Detector
from shared.models.files import CONFIG, WEIGHTS, load_config, load_state, stored_values
from shared.models.segmentor import Segmentor
from shared.system.errors import ArtifactError

A = TypeVar("A", bound=nn.Module)
B = TypeVar("B", bound=nn.Module)

NETWORKS: dict[type, type[nn.Module]] = {
    EncoderConfig: Encoder,
    SegmentorConfig: Segmentor,
    ClassifierConfig: Classifier,
    DetectorConfig: Detector,
}
"""Config class of each kind of model -> its network class, which is built as `network(config)` and has `.config`."""


@overload
def load_model(folder: Path, first: type[A], /) -> A: ...
@overload
def load_model(folder: Path, first: type[A], second: type[B], /) -> A | B: ...
def load_model(folder: Path, *expected: type[nn.Module]) -> nn.Module:
    """Load the network in `folder`, in evaluation mode on the CPU; its config is `.config`.

    expected: the accepted network classes. Raises ArtifactError where the model is of another kind, or where its
    weights do not match its config.
    """
    accepted = [config for config, network in NETWORKS.items() if network in expected]
    config: Any = load_config(folder, *accepted)
    _check_declared_size(folder, config)
    network = _build(config, folder)
    _load_state(network, load_state(folder), folder)
    return network.eval()


def _build(config: Any, folder: Path) -> nn.Module:
    try:
        return NETWORKS[type(config)](config)
    except (AssertionError, ValueError, RuntimeError, ArithmeticError) as error:
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise ArtifactError(
            f"{folder / CONFIG}: no network can be built of it ({text}); create the model again"
        ) from error


def _load_state(network: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise ArtifactError(
            f"{folder}: the weights do not match config.json ({first[0].strip()}); create the model again"
        ) from error


def _check_declared_size(folder: Path, config: Any) -> None:
    """Raise ArtifactError where `config.json` describes more parameters than `model.safetensors` holds.

    A config from elsewhere may describe a network that no memory holds; its weights cannot lie.
    """
    described, stored = fewest_parameters(config), stored_values(folder)
    if described > stored:
        raise ArtifactError(
            f"{folder / CONFIG}: describes a network of {described:.3g} parameters or more, {WEIGHTS} holds "
            f"{stored:.3g}; use the files of one model"
        )


def fewest_parameters(config: Any) -> int:
    """Count the parameters that a network of this config has at least: its largest parts."""
    architecture = config.architecture
    if isinstance(config, DetectorConfig):
        layers = architecture.encoder_layers + architecture.decoder_layers
        layer = 4 * architecture.width**2 + 2 * architecture.width * architecture.feed_forward
        blocks = 9 * int(architecture.width * min(architecture.expansion, 1e6)) ** 2
        return _backbone(architecture.backbone, config.input) + layers * layer + blocks
    if isinstance(config, SegmentorConfig):
        return _backbone(architecture.encoder, config.input) + 9 * architecture.width**2
    if isinstance(config, ClassifierConfig):
        return _backbone(architecture.encoder, config.input) + len(architecture.classes) * architecture.encoder.width
    return _backbone(architecture, config.input)


def _backbone(backbone: VitArchitecture | ResNetArchitecture, given: ModelInput) -> int:
    """Of a vision transformer: the blocks (attention 4 width², MLP 8 width²), patches, positions and registers."""
    if isinstance(backbone, ResNetArchitecture):
        return 9 * given.channels
    tokens = (backbone.position_grid or 0) ** 2 + backbone.registers
    return backbone.width * (12 * backbone.depth * backbone.width + backbone.patch**2 * given.channels + tokens)
