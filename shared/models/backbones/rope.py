"""Rotary positions: Su et al. 2021, arXiv:2104.09864, in two dimensions as DINOv3 has them (Siméoni et al. 2025,
arXiv:2508.10104, section 3.2).

Queries and keys are turned by angles that grow with the patch's place, so that their product knows how far apart two
patches are. Places are relative to the grid: its edges are at -1 and 1 whatever its size, each axis by itself.
"""

import math

import torch
from torch import Tensor

BASE = 100.0
"""The longest period is a little less than BASE; the shortest is 1, half of the grid."""


def periods(head: int) -> Tensor:
    """Periods (head / 4,) of an attention head of so many features, in units of half a grid."""
    return BASE ** (torch.arange(head // 4, dtype=torch.float32) / (head // 4))


def rotation(rows: int, columns: int, head: int) -> Tensor:
    """Cosines and sines (2, rows * columns, head) float32 of the angles of each patch, row by row.

    The angles of the row come first, then those of the column, and all of them again: feature i is turned together with
    feature i + head / 2.
    """
    places = [(torch.arange(count, dtype=torch.float32) + 0.5) / count * 2 - 1 for count in (rows, columns)]
    grid = torch.stack(torch.meshgrid(*places, indexing="ij"), dim=-1).reshape(-1, 2, 1)
    angles = (2 * math.pi * grid / periods(head)).flatten(1).tile(2)
    return torch.stack([angles.cos(), angles.sin()])


def rotated(x: Tensor, turns: Tensor) -> Tensor:
    """Queries or keys (N, heads, T, head) -> the same, turned by `turns` (2, [N, 1,] P, head), see `rotation`.

    The last P of the T tokens are patches; those before, class token and registers, have no place and stay.
    """
    cos, sin = turns
    first = x.shape[-2] - cos.shape[-2]
    patches = x[..., first:, :]
    left, right = patches.chunk(2, dim=-1)
    turned = patches * cos + torch.cat([-right, left], dim=-1) * sin
    return torch.cat([x[..., :first, :], turned.to(x.dtype)], dim=-2)
