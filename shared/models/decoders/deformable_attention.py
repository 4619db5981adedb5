"""Attend to a few learned points around each query's box on maps of several strides.

Deformable attention (Zhu et al. 2021, arXiv:2010.04159, equation 3) with RT-DETRv2's offsets relative to the box
(arXiv:2407.17140, section 3.1). It computes what transformers' `RTDetrV2MultiscaleDeformableAttention` does, without
the checks on tensors that torch's ONNX exporter cannot translate. A test compares both.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DeformableAttention(nn.Module):
    """Take the place of transformers' module, with its layers and parameter names."""

    def __init__(self, library: Any) -> None:
        super().__init__()
        self.heads, self.levels, self.points = library.n_heads, library.n_levels, library.n_points
        self.offset_scale = library.offset_scale / library.n_points
        self.sampling_offsets = library.sampling_offsets
        self.attention_weights = library.attention_weights
        self.value_proj, self.output_proj = library.value_proj, library.output_proj

    def forward(
        self,
        hidden_states: Tensor,
        *,
        encoder_hidden_states: Tensor,
        position_embeddings: Tensor,
        reference_points: Tensor,
        spatial_shapes_list: list[tuple[int, int]],
        **unused: Any,
    ) -> tuple[Tensor, None]:
        """Queries (N, Q, width) and their positions -> (N, Q, width), and None for the attention's weights.

        encoder_hidden_states: (N, T, width), the maps one after the other; reference_points: (N, Q, 1, 4), boxes as
        centre and size in shares of the image; spatial_shapes_list: rows and columns of each map.
        """
        del unused
        queries = hidden_states + position_embeddings
        n, q, _ = queries.shape
        offsets = self.sampling_offsets(queries).view(n, q, self.heads, self.levels * self.points, 2)
        weights = self.attention_weights(queries).view(n, q, self.heads, self.levels * self.points).softmax(dim=-1)
        centre, size = reference_points[:, :, None, :, :2], reference_points[:, :, None, :, 2:]
        places = centre + offsets * self.offset_scale * size
        values = self.value_proj(encoder_hidden_states)
        return self.output_proj(self._sample(values, places, weights, spatial_shapes_list)), None

    def _sample(self, values: Tensor, places: Tensor, weights: Tensor, shapes: list[tuple[int, int]]) -> Tensor:
        """Weighted sum of the values (N, T, width) at places (N, Q, heads, levels * points, 2) -> (N, Q, width)."""
        n, q = places.shape[:2]
        grid = (2 * places - 1).transpose(1, 2).flatten(0, 1)  # (N * heads, Q, levels * points, 2)
        maps = values.split([rows * columns for rows, columns in shapes], dim=1)
        sampled = []
        for level, (rows, columns) in enumerate(shapes):
            image = maps[level].transpose(1, 2).reshape(n * self.heads, -1, rows, columns)
            points = grid[:, :, level * self.points : (level + 1) * self.points]
            sampled.append(F.grid_sample(image, points, mode="bilinear", padding_mode="zeros", align_corners=False))
        weights = weights.transpose(1, 2).reshape(n * self.heads, 1, q, -1)
        summed = (torch.cat(sampled, dim=-1) * weights).sum(dim=-1)  # (N * heads, width / heads, Q)
        return summed.view(n, -1, q).transpose(1, 2)
