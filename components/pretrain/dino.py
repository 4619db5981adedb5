"""Networks of self-distillation: DINO, Caron et al. 2021, arXiv:2104.14294, with iBOT's patch term, Zhou et al. 2022,
arXiv:2111.07832.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from components.pretrain.texture import DESCRIPTORS
from shared.models.backbones.blocks import initialise
from shared.models.backbones.vit import Encoder
from shared.system.collectives import total

PROTOTYPES = 256


class Head(nn.Module):
    """Projection head: three linear layers, l2-normalised, onto unit prototypes. (..., width) -> (..., PROTOTYPES).

    The input is standardised over the batch. At first all tokens are nearly alike, and so would be their logits and the
    teacher's targets; standardised, the targets distinguish tokens from the first step, which saves hundreds of steps.
    """

    def __init__(self, width: int, hidden: int = 512, bottleneck: int = 64) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.prototypes = nn.Parameter(torch.randn(PROTOTYPES, bottleneck))
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> cosine with every prototype (..., PROTOTYPES)."""
        rows = standardise(x.flatten(0, -2))
        return F.normalize(self.mlp(rows.reshape(x.shape)), dim=-1) @ F.normalize(self.prototypes, dim=-1).T


def standardise(rows: Tensor, eps: float = 1e-5) -> Tensor:
    """Subtract the mean of each column of (M, width) and divide by its deviation, over the rows of all processes."""
    if not dist.is_initialized():
        return F.batch_norm(rows, None, None, training=True, eps=eps)
    rows = rows.float()
    count = total(rows.new_tensor(len(rows)))
    centred = rows - total(rows.sum(dim=0)) / count
    return centred * (total((centred**2).sum(dim=0)) / count + eps).rsqrt()


class StudentOutput(NamedTuple):
    """Output of the student for a batch of N crops."""

    view_logits: Tensor
    """(V * N, PROTOTYPES), class tokens of all views, the two global ones first."""
    patch_logits: Tensor
    """(hidden patches, PROTOTYPES)"""
    texture: Tensor | None
    """(2 * N, T, DESCRIPTORS * C), predicted texture of the global views' patches."""


class DinoNetwork(nn.Module):
    """Encoder, heads for the class token and for patches, and the token that replaces a hidden patch."""

    def __init__(self, encoder: Encoder, *, texture: bool = False) -> None:
        """texture: add a head that predicts the texture of patches."""
        super().__init__()
        self.encoder = encoder
        self.head = Head(encoder.architecture.width)
        self.patch_head = Head(encoder.architecture.width)
        self.mask_token = nn.Parameter(torch.zeros(encoder.architecture.width))
        self.texture_head: nn.Module | None = None
        if texture:
            predicted = DESCRIPTORS * encoder.config.input.channels
            self.texture_head = nn.Linear(encoder.architecture.width, predicted).apply(initialise)

    def encode(self, x: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) -> class token (N, width) and patch tokens (N, T, width). hidden: (N, T) bool."""
        out = self.encoder.encode(self.encoder.embed(x, hidden, self.mask_token), self.encoder.grid(x))
        return out[:, 0], out[:, 1:]

    def forward(self, large: Tensor, small: Tensor, hidden: Tensor) -> StudentOutput:
        """Apply the student to global views (2 * N, C, S, S) with hidden patches (2 * N, T), and to local views."""
        classes, patches = self.encode(large, hidden)
        view_logits = self.head(torch.cat([classes, self.encode(small)[0]]))
        patch_logits = self.patch_head(patches[hidden])
        return StudentOutput(view_logits, patch_logits, self.texture_head(patches) if self.texture_head else None)
