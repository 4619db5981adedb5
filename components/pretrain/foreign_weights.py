"""Build an encoder from a published checkpoint: a vision transformer of timm, DINO, MAE, DINOv2 or DINOv3."""

import math
import re
from pathlib import Path

import torch
from torch import Tensor

from components.pretrain.parameter_names import rename_parameters
from components.pretrain.patch_embedding import SCALINGS, fold_scaling, resample_kernel
from shared.models.backbones.rope import periods
from shared.models.backbones.vit import Encoder, sincos_positions
from shared.models.config import VIT_SHAPES, EncoderConfig, VitArchitecture
from shared.system.errors import UserError
from shared.system.log import log

_GATED = re.compile(r"\.mlp\.(w\d|weights_in|gate_proj|fc1_g)\b")
"""Parameter names within a gated MLP, in the checkpoints of the largest models."""
_DINOV3_NORM_EPS = 1e-5
"""All other families have the default of `VitArchitecture`."""
_LISTED_PROBLEMS = 6


def adapt_checkpoint(state: dict[str, Tensor], config: EncoderConfig, path: Path, scaling: str = "unit") -> Encoder:
    """Build an encoder with the weights of a checkpoint, its patch embedding adapted to the config.

    scaling: what the checkpoint's network expects of colours, a key of `SCALINGS`, or unit for values in [0, 1]; it is
    folded into the patch embedding. Positions, registers, LayerScale and norms are those of the checkpoint. Raises
    UserError that lists what does not match `config`.
    """
    named = rename_parameters(state)
    _refuse_gated(named, path)
    _refuse_other_size(named, config.architecture, path)
    config = config.model_copy(update={"architecture": _architecture_of(named, config.architecture, path)})
    _adapt_patch_embedding(named, config, path, scaling)
    encoder = Encoder(config)
    problems = _problems(named, encoder.state_dict())
    if problems:
        vit = config.architecture
        listed, more = problems[:_LISTED_PROBLEMS], len(problems) - _LISTED_PROBLEMS
        raise UserError(
            f"--weights: {path} does not match --size {vit.size} --patch {vit.patch} "
            f"(width {vit.width}, depth {vit.depth}): {'; '.join(listed)}{f'; and {more} more' if more > 0 else ''}"
        )
    encoder.load_state_dict(named)
    return encoder


def _refuse_gated(named: dict[str, Tensor], path: Path) -> None:
    first, second = (named.get(f"blocks.0.mlp.{layer}.weight") for layer in ("fc1", "fc2"))
    joined = first is not None and second is not None and len(first) == 2 * second.shape[-1]
    if joined or any(_GATED.search(name) for name in named):
        raise UserError(
            f"--weights: {path}: its MLPs are gated (SwiGLU), which the encoder does not support; of DINOv2 and "
            "DINOv3, give one of the ViTs small, base and large, not giant, 7B or a `plus` one"
        )


def _refuse_other_size(named: dict[str, Tensor], vit: VitArchitecture, path: Path) -> None:
    blocks = {name.split(".")[1] for name in named if name.startswith("blocks.")}
    width = named["cls_token"].shape[-1] if "cls_token" in named else 0
    size = next((size for size, shape in VIT_SHAPES.items() if shape[:2] == (width, len(blocks))), vit.size)
    if size != vit.size:
        raise UserError(
            f"--weights: {path} is a ViT of width {width} and depth {len(blocks)}, but --size {vit.size} has width "
            f"{vit.width} and depth {vit.depth}; give --size {size}"
        )


def _architecture_of(named: dict[str, Tensor], vit: VitArchitecture, path: Path) -> VitArchitecture:
    """The architecture, with registers, LayerScale and positions as in the checkpoint."""
    registers, table = named.get("reg_token"), named.get("pos_embed")
    count = registers.shape[1] if registers is not None and registers.ndim == 3 else 0
    settings = {"registers": count, "layer_scale": "blocks.0.ls1.gamma" in named, "position_grid": None}
    vit = vit.model_copy(update=settings)
    if table is not None and table.ndim == 3:
        return _take_positions(named, vit)
    if registers is None:
        if vit.layer_scale:
            raise UserError(
                f"--weights: {path}: it has no positions, which only DINOv3 does without; give a whole checkpoint"
            )
        return vit
    if not count:
        del named["reg_token"]
    expected, given = periods(vit.width // vit.heads), named.pop("rope_embed.periods", None)
    if given is not None and not (given.shape == expected.shape and torch.allclose(given, expected, rtol=1e-2)):
        raise UserError(
            f"--weights: {path}: the periods of its rotary positions are not those of DINOv3; give a DINOv3 checkpoint"
        )
    return vit.model_copy(update={"rope": True, "norm_eps": _DINOV3_NORM_EPS})


def _take_positions(named: dict[str, Tensor], vit: VitArchitecture) -> VitArchitecture:
    """Drop a table of positions that is the fixed sin-cos one (MAE's); keep a learned one, with its side in the config.

    The kept table has one position for the class token, zero where there was none, and none for registers: theirs are
    added to the register tokens.
    """
    table = named["pos_embed"]
    side = math.isqrt(table.shape[1])
    special = table.shape[1] - side * side
    if special == 0:
        table = torch.cat([table.new_zeros(1, 1, table.shape[2]), table], dim=1)
    elif vit.registers and special == 1 + vit.registers:
        named["reg_token"] = named["reg_token"] + table[:, 1:special]
        table = torch.cat([table[:, :1], table[:, special:]], dim=1)
    named["pos_embed"] = table
    if table.shape[1] != 1 + side * side or table.shape[2] % 4:
        return vit.model_copy(update={"position_grid": max(1, side)})
    if torch.allclose(table[0, 1:], sincos_positions(side, side, table.shape[2]), atol=1e-3):
        named["cls_token"] = named["cls_token"] + table[:, :1] if "cls_token" in named else table[:, :1]
        del named["pos_embed"]
        return vit
    return vit.model_copy(update={"position_grid": side})


def _adapt_patch_embedding(named: dict[str, Tensor], config: EncoderConfig, path: Path, scaling: str) -> None:
    kernel, bias = (named.get(f"patch_embed.proj.{kind}") for kind in ("weight", "bias"))
    if kernel is None or bias is None or kernel.ndim != 4 or kernel.shape[2] != kernel.shape[3]:
        return  # listed among the problems
    if kernel.shape[1] != 3 and scaling in SCALINGS:
        raise UserError(
            f"--weights: {path} has {kernel.shape[1]} channels, but --weights_input {scaling} is for red, green and "
            "blue; give --weights_input unit if it expects values in [0, 1]"
        )
    patch = config.architecture.patch
    if kernel.shape[3] != patch:
        log.info("%s: its patches of %d px are resampled to %d px", path.name, kernel.shape[3], patch)
    kernel, bias = fold_scaling(resample_kernel(kernel, patch), bias, config.input.channels, scaling)
    named |= {"patch_embed.proj.weight": kernel, "patch_embed.proj.bias": bias}


def _problems(found: dict[str, Tensor], needed: dict[str, Tensor]) -> list[str]:
    shapes = [
        f"{name} is {tuple(found[name].shape)} instead of {tuple(needed[name].shape)}"
        for name in needed
        if name in found and found[name].shape != needed[name].shape
    ]
    missing = [f"{name} is missing" for name in needed if name not in found]
    extra = [f"{name} is unknown" for name in found if name not in needed]
    return shapes + missing + extra
