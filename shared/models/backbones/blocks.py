"""The parts that a vision transformer is made of; names and arithmetic are timm's, see `encoder.py`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shared.models.backbones.rope import rotated


class Attention(nn.Module):
    """Multi-head self-attention, with rotary positions where they are given. (N, T, width) -> (N, T, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, turns: Tensor | None = None) -> Tensor:
        """(N, T, width) -> (N, T, width). turns: see `shared.models.backbones.rope.rotated`."""
        n, t, width = x.shape
        q, k, v = (part.reshape(n, t, self.heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=2))
        if turns is not None:
            q, k = rotated(q, turns), rotated(k, turns)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, width))


class Mlp(nn.Module):
    """Two linear layers with GELU between them, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> (..., width)."""
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """A learned factor for each feature: Touvron et al. 2021, arXiv:2103.17239. (..., width) -> (..., width)."""

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

    def forward(self, x: Tensor, turns: Tensor | None = None) -> Tensor:
        """(N, T, width) -> (N, T, width). turns: see `shared.models.backbones.rope.rotated`."""
        x = x + self.ls1(self.attn(self.norm1(x), turns))
        return x + self.ls2(self.mlp(self.norm2(x)))


def initialise(module: nn.Module) -> None:
    """Weights of a linear layer Xavier-uniform, biases zero, as in MAE (He et al. 2022, A.1)."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
