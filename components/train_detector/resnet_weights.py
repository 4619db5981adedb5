"""Load published weights into a ResNet backbone."""

import torch
from torch import Tensor

from shared.models.backbones.checkpoint_file import local_file, read_tensors
from shared.models.backbones.resnet import ResNet
from shared.system.errors import UserError

FLAG = "--backbone_weights"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What the published networks subtract from colours in [0, 1], and divide them by."""


def load_resnet_weights(resnet: ResNet, location: str) -> None:
    """Load torchvision's weights at a path or uri. Raises UserError where they do not match.

    The standardisation of colours is folded into the first layer; channels other than three get the mean kernel.
    """
    with local_file(location) as path:
        state = read_tensors(path, FLAG)
    state = {name: value for name, value in state.items() if not name.startswith("fc.")}
    own = resnet.state_dict()
    wrong = [
        name
        for name, value in own.items()
        if name != "conv1.weight" and (name not in state or state[name].shape != value.shape)
    ]
    if wrong or "conv1.weight" not in state or state["conv1.weight"].shape[1] != 3:
        depth = resnet.architecture.depth
        raise UserError(
            f"{FLAG}: {location} does not match ResNet {depth} ({wrong[:1] or 'conv1.weight'}); give weights of "
            f"torchvision's resnet{depth}, or set --backbone"
        )
    resnet.load_state_dict(_fold(state, own["conv1.weight"].shape[1]))


def _fold(state: dict[str, Tensor], channels: int) -> dict[str, Tensor]:
    """Weights that expect colours in [0, 1], of any number of channels."""
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    kernel = state["conv1.weight"] / std[:, None, None]
    offset = (kernel * mean[:, None, None]).sum(dim=(1, 2, 3))
    if channels != len(mean):
        kernel = kernel.mean(dim=1, keepdim=True).expand(-1, channels, -1, -1) * len(mean) / channels
    return {**state, "conv1.weight": kernel.contiguous(), "bn1.running_mean": state["bn1.running_mean"] + offset}
