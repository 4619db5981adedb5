"""Rename the parameters of published checkpoints to those of `shared.models.backbones.vit`, which are timm's.

Supported: timm's two classes (VisionTransformer, and Eva for DINOv3), the authors' code of DINO, MAE, DINOv2 and
DINOv3, and transformers' Dinov2, Dinov2WithRegisters and DINOv3ViT, as saved in files and as in memory.
"""

import re

import torch
from torch import Tensor

_RENAMES = (
    (r"^((module|backbone|encoder|vit|model|dinov2|dinov2_with_registers)\.)+", ""),
    (r"^embeddings\.", ""),
    (r"^(register|storage)_tokens$", "reg_token"),
    (r"^position_embeddings$", "pos_embed"),
    (r"^patch_embeddings\.(projection\.)?", "patch_embed.proj."),
    (r"^layer\.", "blocks."),
    (r"^layernorm\.", "norm."),
    (r"\.gamma_([12])$", r".ls\1.gamma"),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.attention\.(attention\.)?([qkv])(_proj|uery|ey|alue)\.", r".attn.\2_proj."),
    (r"\.attention\.(o_proj|output\.dense)\.", ".attn.proj."),
    (r"\.attn\.([qv])_bias$", r".attn.\1_proj.bias"),
    (r"\.mlp\.up_proj\.", ".mlp.fc1."),
    (r"\.mlp\.down_proj\.", ".mlp.fc2."),
)
"""Pattern and replacement, applied in order."""
_OTHER_PARTS = re.compile(
    r"^(head|fc_norm|decoder|mask_token|pre_logits|last_layer|dist_token|classifier|projectors|(dino|ibot)_head)"
)
"""Names of heads, decoders and other parts that an encoder does not have."""


def rename_parameters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder's part of a checkpoint in float32, renamed, with q, k and v of each attention joined."""
    named = {_new_name(name): tensor.float() for name, tensor in state.items()}
    if "norm.weight" not in named and "fc_norm.weight" in named:  # timm's name under average pooling
        named |= {name.removeprefix("fc_"): tensor for name, tensor in named.items() if name.startswith("fc_norm.")}
    named = {name: tensor for name, tensor in named.items() if not _OTHER_PARTS.match(name)}
    for name in [name for name in named if name.endswith(".attn.proj.weight")]:
        _join_qkv(named, name.removesuffix("proj.weight"))
    return named


def _new_name(name: str) -> str:
    for pattern, new in _RENAMES:
        name = re.sub(pattern, new, name)
    return name


def _join_qkv(named: dict[str, Tensor], attention: str) -> None:
    """Join the matrices and biases of q, k and v. A missing bias (DINOv3: k's, or all) becomes zero."""
    for kind in ("weight", "bias"):
        parts = [named.pop(f"{attention}{letter}_proj.{kind}", None) for letter in "qkv"]
        given = [part for part in parts if part is not None]
        if given and (kind == "bias" or len(given) == len(parts)):
            named[f"{attention}qkv.{kind}"] = torch.cat(
                [torch.zeros_like(given[0]) if part is None else part for part in parts]
            )
    if (weight := named.get(f"{attention}qkv.weight")) is None:
        return
    bias = named.setdefault(f"{attention}qkv.bias", weight.new_zeros(len(weight)))
    if (mask := named.pop(f"{attention}qkv.bias_mask", None)) is not None:  # in the authors' DINOv3, k's part is masked
        named[f"{attention}qkv.bias"] = torch.where(mask == 0, torch.zeros_like(bias), bias)
