"""Open a Model artifact of any kind.

>>> segmentor = load_model(folder, Segmentor)
>>> model = load_model(folder, Encoder, Segmentor)  # either; `model.config` states which
"""

from pathlib import Path
from typing import Any, TypeVar, overload

from torch import Tensor, nn

from shared.models.backbones.vit import Encoder
from shared.models.classifier import Classifier
from shared.models.config import ClassifierConfig, DetectorConfig, EncoderConfig, SegmentorConfig
from shared.models.detector import Detector
from shared.models.files import load_config, load_state
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
    network = NETWORKS[type(config)](config)
    _load_state(network, load_state(folder), folder)
    return network.eval()


def _load_state(network: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise ArtifactError(
            f"{folder}: the weights do not match config.json ({first[0].strip()}); create the model again"
        ) from error
