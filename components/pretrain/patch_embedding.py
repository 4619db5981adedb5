"""A given patch embedding made to fit: another patch, other channels, another scaling of the input."""

import torch
import torch.nn.functional as F
from torch import Tensor

SCALINGS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""What others take from red, green and blue in [0, 1], and divide them by, before their network sees them."""


def resampled(kernel: Tensor, patch: int) -> Tensor:
    """Patch embedding (width, C, p, p) for patches of another size: (width, C, patch, patch).

    FlexiViT (Beyer et al. 2023, arXiv:2212.08013, section 3.4): with resizing as the matrix B, the new kernel is
    pinv(B^T) times the old one. A patch made larger then gives the same token; of one made smaller, as near as can be.
    """
    old = kernel.shape[-1]
    if old == patch:
        return kernel
    pixels = torch.eye(old * old).reshape(-1, 1, old, old)
    resize = F.interpolate(pixels, size=(patch, patch), mode="bicubic", antialias=True, align_corners=False).flatten(1)
    inverse = torch.linalg.pinv(resize.T.double())  # (p², patch²)
    return (kernel.flatten(2).double() @ inverse).to(kernel.dtype).reshape(*kernel.shape[:2], patch, patch)


def fit_channels(kernel: Tensor, channels: int) -> Tensor:
    """Patch embedding (width, C, p, p) for another number of channels, as timm's `adapt_input_conv` makes it.

    One channel gets the sum; more than there were get copies in turn, scaled down.
    """
    have = kernel.shape[1]
    if have == channels:
        return kernel
    if channels == 1:
        return kernel.sum(dim=1, keepdim=True)
    return kernel[:, [c % have for c in range(channels)]] * (have / channels)


def with_scaling(kernel: Tensor, bias: Tensor, channels: int, scaling: str) -> tuple[Tensor, Tensor]:
    """Kernel (width, 3, p, p) and bias (width,) of a network of scaled colours -> for `channels` in [0, 1].

    The scaling is linear, so the patch embedding can do it; images have no border to it, and it is exact.
    """
    if scaling not in SCALINGS:
        return fit_channels(kernel, channels), bias
    mean, deviation = (torch.tensor(values).reshape(1, 3, 1, 1) for values in SCALINGS[scaling])
    kernel = kernel / deviation
    return fit_channels(kernel, channels), bias - fit_channels(kernel * mean, channels).sum(dim=(1, 2, 3))
