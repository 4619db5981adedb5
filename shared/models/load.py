"""Open a Model artifact of any kind.

>>> segmentor = load_model(folder, Segmentor)
>>> model = load_model(folder, Encoder, Segmentor)  # either; `model.config` says which
"""

from pathlib import Path
from typing import Any, TypeVar, overload

from torch import Tensor, nn

from shared.models.backbones.vit import Encoder
from shared.models.config import EncoderConfig, SegmentorConfig
from shared.models.files import load_config, load_state
from shared.models.segmentor import Segmentor
from shared.system.errors import ArtifactError

A = TypeVar("A", bound=nn.Module)
B = TypeVar("B", bound=nn.Module)

NETWORKS: dict[type, type[nn.Module]] = {EncoderConfig: Encoder, SegmentorConfig: Segmentor}
"""Config of each kind of model -> its network, made as `network(config)` and having it as `.config`."""


@overload
def load_model(folder: Path, first: type[A], /) -> A: ...
@overload
def load_model(folder: Path, first: type[A], second: type[B], /) -> A | B: ...
def load_model(folder: Path, *expected: type[nn.Module]) -> nn.Module:
    """The network in `folder`, in evaluation mode on the CPU; its config is `.config`.

    expected: the networks that will do. Raises ArtifactError where the model is of another kind, or where its weights
    do not fit its config.
    """
    config: Any = load_config(folder, *(kind for kind, network in NETWORKS.items() if network in expected))
    network = NETWORKS[type(config)](config)
    load_exactly(network, load_state(folder), folder)
    return network.eval()


def load_exactly(module: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
    """Load `state` into `module`; raises ArtifactError naming the folder where a name or shape does not fit."""
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]
        raise ArtifactError(
            f"{folder}: the weights do not fit config.json ({first[0].strip()}); make the model again"
        ) from error
