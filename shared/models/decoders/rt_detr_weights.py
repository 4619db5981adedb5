"""Read RT-DETRv2 as the library transformers stores it: its architecture, and its weights under our names.

The models of `PekingU/rtdetr_v2_r18vd`, `..._r34vd` and `..._r50vd` have this form (Apache-2.0).
"""

import re
from collections.abc import Callable
from typing import Any

from torch import Tensor

from shared.models.config import ResNetArchitecture

State = dict[str, Tensor]
_POINTS, _LEVELS = 4, 3
"""Sampling points of a head in each level, and levels."""
_DEPTHS = {(8, False): 18, (16, False): 34, (16, True): 50}
"""Number of blocks, and whether they are bottlenecks -> depth of the ResNet."""
_DROPPED = re.compile(r"class_embed|enc_score_head|n_points_scale|num_batches_tracked")
"""Heads of the classes, and constants."""
_RENAMED: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"embedder\.embedder\.2\.normalization\.", "bn1."),
    (r"embedder\.embedder\.(\d)\.convolution\.", lambda m: f"conv1.{3 * int(m[1])}."),
    (r"embedder\.embedder\.(\d)\.normalization\.", lambda m: f"conv1.{3 * int(m[1]) + 1}."),
    (r"encoder\.stages\.(\d)\.layers\.", lambda m: f"layer{int(m[1]) + 1}."),
    (r"\.layer\.(\d)\.convolution\.", lambda m: f".conv{int(m[1]) + 1}."),
    (r"\.layer\.(\d)\.normalization\.", lambda m: f".bn{int(m[1]) + 1}."),
    (r"\.shortcut\.(1\.)?convolution\.", ".downsample.1."),
    (r"\.shortcut\.(1\.)?normalization\.", ".downsample.2."),
    (r"\.out_proj\.", ".o_proj."),
    (r"layers\.(\d+)\.fc", r"layers.\1.mlp.fc"),
    (r"^transformer\.encoder\.encoder\.", "transformer.encoder.aifi."),
)
"""The library's names, of files and of memory -> names of `shared.models.detector.Detector`."""


def published_weights(state: State) -> State:
    """Return the weights under the names of `shared.models.detector.Detector`, without the heads of the classes."""
    renamed = {}
    for name, tensor in state.items():
        if name.startswith("model.") and not _DROPPED.search(name):  # others are copies of the heads
            own = name.removeprefix("model.")
            own = own.replace("backbone.model.", "backbone.", 1) if "backbone" in own else f"transformer.{own}"
            for pattern, replacement in _RENAMED:
                own = re.sub(pattern, replacement, own)
            renamed[own] = tensor
    return renamed


def published_architecture(weights: State) -> tuple[ResNetArchitecture, dict[str, Any]] | None:
    """Return the backbone and other fields of DetectorArchitecture; None where the weights are of another network.

    weights: as `published_weights` returns them.
    """
    blocks = {m[0] for name in weights if (m := re.match(r"backbone\.layer\d\.\d+\.", name))}
    depth = _DEPTHS.get((len(blocks), any(re.match(r"backbone\.layer.*\.conv3\.", name) for name in weights)))
    layers = {m[1] for name in weights if (m := re.match(r"transformer\.decoder\.layers\.(\d+)\.", name))}
    try:
        offsets = weights["transformer.decoder.layers.0.encoder_attn.sampling_offsets.weight"]
        hidden = weights["transformer.decoder.layers.0.mlp.fc1.weight"]
        repeated = weights["transformer.encoder.fpn_blocks.0.conv1.conv.weight"]
    except KeyError:
        return None
    if depth is None:
        return None
    width = hidden.shape[1]
    fields = {
        "width": width,
        "heads": len(offsets) // (_POINTS * _LEVELS * 2),
        "feed_forward": len(hidden),
        "expansion": len(repeated) / width,
        "decoder_layers": len(layers),
        "norm": "batch",
    }
    return ResNetArchitecture(depth=depth, variant="rt_detr", norm="frozen"), fields  # type: ignore[arg-type]
