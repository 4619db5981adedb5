"""Adapt a patch embedding to another patch size, other channels, or another scaling of the input."""

import torch
import torch.nn.functional as F
from torch import Tensor

SCALINGS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Mean and deviation by which published networks standardise red, green and blue in [0, 1]."""


def resample_kernel(kernel: Tensor, patch: int) -> Tensor:
    """Resample a patch embedding (width, C, p, p) to another patch size: (width, C, patch, patch).

    FlexiViT (Beyer et al. 2023, arXiv:2212.08013, section 3.4): with resizing as the matrix B, the new kernel is
    pinv(B^T) times the old one. An enlarged patch then gives the same token, a reduced one the nearest (least squares).
    """
    old = kernel.shape[-1]
    if old == patch:
        return kernel
    pixels = torch.eye(old * old).reshape(-1, 1, old, old)
    resize = F.interpolate(pixels, size=(patch, patch), mode="bicubic", antialias=True, align_corners=False).flatten(1)
    inverse = torch.linalg.pinv(resize.T.double())  # (p², patch²)
    return (kernel.flatten(2).double() @ inverse).to(kernel.dtype).reshape(*kernel.shape[:2], patch, patch)


def fit_channels(kernel: Tensor, channels: int) -> Tensor:
    """Adapt a patch embedding (width, C, p, p) to another number of channels, as timm's `adapt_input_conv` does.

    One channel gets the sum; additional channels get copies in turn, scaled down.
    """
    have = kernel.shape[1]
    if have == channels:
        return kernel
    if channels == 1:
        return kernel.sum(dim=1, keepdim=True)
    return kernel[:, [c % have for c in range(channels)]] * (have / channels)


def fold_scaling(kernel: Tensor, bias: Tensor, channels: int, scaling: str) -> tuple[Tensor, Tensor]:
    """Fold the scaling of colours into kernel (width, 3, p, p) and bias (width,): input of `channels` in [0, 1].

    The scaling is linear and patches are not padded, so the result is exact.
    """
    if scaling not in SCALINGS:
        return fit_channels(kernel, channels), bias
    mean, deviation = (torch.tensor(values).reshape(1, 3, 1, 1) for values in SCALINGS[scaling])
    kernel = kernel / deviation
    return fit_channels(kernel, channels), bias - fit_channels(kernel * mean, channels).sum(dim=(1, 2, 3))
