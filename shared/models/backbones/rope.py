"""Compute rotary positions: Su et al. 2021, arXiv:2104.09864, in two dimensions as in DINOv3 (Siméoni et al. 2025,
arXiv:2508.10104, section 3.2).

Queries and keys are rotated by angles that grow with the patch's position, so that their dot product depends on the
distance between two patches. Positions are relative to the grid: its edges are at -1 and 1 along each axis, whatever
its size.
"""

import math

import torch
from torch import Tensor

BASE = 100.0
"""Upper bound of the periods; the shortest is 1, half of the grid."""


def periods(head: int) -> Tensor:
    """Periods (head / 4,) of an attention head with `head` features, in units of half a grid."""
    return BASE ** (torch.arange(head // 4, dtype=torch.float32) / (head // 4))


def rotation(rows: int, columns: int, head: int) -> Tensor:
    """Cosines and sines (2, rows * columns, head) float32 of each patch's angles, row by row.

    The angles of the row come first, then those of the column, and both again: feature i rotates together with
    feature i + head / 2.
    """
    centres = [(torch.arange(count, dtype=torch.float32) + 0.5) / count * 2 - 1 for count in (rows, columns)]
    grid = torch.stack(torch.meshgrid(*centres, indexing="ij"), dim=-1).reshape(-1, 2, 1)
    angles = (2 * math.pi * grid / periods(head)).flatten(1).tile(2)
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x: Tensor, cos_sin: Tensor) -> Tensor:
    """Rotate queries or keys (N, heads, T, head) by the angles of `rotation`, cos_sin: (2, [N, 1,] P, head).

    The last P of the T tokens are patches. Those before them, class token and registers, have no position and stay.
    """
    cos, sin = cos_sin
    first = x.shape[-2] - cos.shape[-2]
    patches = x[..., first:, :]
    left, right = patches.chunk(2, dim=-1)
    rotated = patches * cos + torch.cat([-right, left], dim=-1) * sin
    return torch.cat([x[..., :first, :], rotated.to(x.dtype)], dim=-2)
