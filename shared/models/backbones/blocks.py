"""Layers of a vision transformer; parameter names and arithmetic are timm's, see `vit.py`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.models.backbones.rope import rotate


class Attention(nn.Module):
    """Multi-head self-attention, optionally with rotary positions. (N, T, width) -> (N, T, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, cos_sin: Tensor | None = None) -> Tensor:
        """(N, T, width) -> (N, T, width). cos_sin: see `shared.models.backbones.rope.rotate`."""
        n, t, width = x.shape
        q, k, v = (part.reshape(n, t, self.heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=2))
        if cos_sin is not None:
            q, k = rotate(q, cos_sin), rotate(k, cos_sin)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, width))


class Mlp(nn.Module):
    """Two linear layers with GELU between them; the hidden layer is four times as wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """A learned factor per feature: Touvron et al. 2021, arXiv:2103.17239. (..., width) -> (..., width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        return x * self.gamma


class Block(nn.Module):
    """Transformer block with the norms before attention and MLP."""

    def __init__(self, width: int, heads: int, *, layer_scale: bool = False, norm_eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = Attention(width, heads)
        self.ls1 = LayerScale(width) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width)
        self.ls2 = LayerScale(width) if layer_scale else nn.Identity()

    def forward(self, x: Tensor, cos_sin: Tensor | None = None) -> Tensor:
        """(N, T, width) -> (N, T, width). cos_sin: see `shared.models.backbones.rope.rotate`."""
        x = x + self.ls1(self.attn(self.norm1(x), cos_sin))
        return x + self.ls2(self.mlp(self.norm2(x)))


def initialise(module: nn.Module) -> None:
    """Initialise a linear layer: weights Xavier-uniform, biases zero, as in MAE (He et al. 2022, A.1)."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
