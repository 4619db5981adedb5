"""Start from somebody else's checkpoint: a vision transformer from timm, DINO, MAE, DINOv2 or DINOv3, weights only."""

import math
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from components.pretrain.parameter_names import renamed
from components.pretrain.patch_embedding import SCALINGS, resampled, with_scaling
from shared.models.backbones.rope import periods
from shared.models.backbones.vit import Encoder, sincos_positions
from shared.models.config import SIZES, EncoderConfig, VitArchitecture
from shared.system.errors import UserError
from shared.system.log import log

WRAPPERS = ("model", "state_dict", "teacher", "student")
"""Keys under which training scripts keep the weights."""
GATED = re.compile(r"\.mlp\.(w\d|weights_in|gate_proj|fc1_g)\b")
"""Names within a gated MLP, in the checkpoints of the largest models."""
NORM_EPS = 1e-5
"""DINOv3's; all others have the encoder's own."""


def read_foreign(path: Path) -> dict[str, Tensor]:
    """Parameter name -> tensor of a `.safetensors` or a weights-only `.pth` file; nothing in it is executed."""
    if not path.is_file():
        raise UserError(f"--weights: {path}: no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"--weights: {path}: it holds Python objects or is no torch file; only tensors are read, since anything "
            "else could run code. Save its state dict alone, best as .safetensors"
        ) from error
    except Exception as error:  # each of the two libraries has its own, and torch's are many
        raise UserError(f"--weights: {path}: cannot be read ({type(error).__name__}: {str(error)[:200]})") from error
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise UserError(f"--weights: {path}: there are no tensors in it")
    return tensors


def adapted(state: dict[str, Tensor], config: EncoderConfig, path: Path, scaling: str = "unit") -> Encoder:
    """An encoder with the weights, its patch embedding fitted to patch and channels, its positions as they were.

    scaling: what its network expects of colours, a key of `SCALINGS`, or unit: values in [0, 1] as they are. It becomes
    part of the patch embedding. Raises UserError that lists what does not fit `config`.
    """
    named = renamed(state)
    _refuse_gated(named, path)
    _refuse_other_size(named, config.architecture, path)
    config = config.model_copy(update={"architecture": _settings_of(named, config.architecture, path)})
    _fit_patches(named, config, path, scaling)
    encoder = Encoder(config)
    problems = _problems(named, encoder.state_dict())
    if problems:
        vit = config.architecture
        shown = "; ".join(problems[:6]) + (f"; and {len(problems) - 6} more" if len(problems) > 6 else "")
        raise UserError(
            f"--weights: {path} does not fit --size {vit.size} --patch {vit.patch} "
            f"(width {vit.width}, depth {vit.depth}): {shown}"
        )
    encoder.load_state_dict(named)
    return encoder


def _refuse_gated(named: dict[str, Tensor], path: Path) -> None:
    first, second = (named.get(f"blocks.0.mlp.{layer}.weight") for layer in ("fc1", "fc2"))
    packed = first is not None and second is not None and len(first) == 2 * second.shape[-1]
    if packed or any(GATED.search(name) for name in named):
        raise UserError(
            f"--weights: {path}: its MLPs are gated (SwiGLU), which the encoder's are not; of DINOv2 and DINOv3 the "
            "ViTs small, base and large are taken, none of the giant, 7B and `plus` ones"
        )


def _refuse_other_size(named: dict[str, Tensor], config: VitArchitecture, path: Path) -> None:
    blocks = {name.split(".")[1] for name in named if name.startswith("blocks.")}
    width = named["cls_token"].shape[-1] if "cls_token" in named else 0
    size = next((size for size, shape in SIZES.items() if shape[:2] == (width, len(blocks))), config.size)
    if size != config.size:
        raise UserError(
            f"--weights: {path} is a ViT of width {width} and depth {len(blocks)}, --size {config.size} has width "
            f"{config.width} and depth {config.depth}; give --size {size}"
        )


def _settings_of(named: dict[str, Tensor], config: VitArchitecture, path: Path) -> VitArchitecture:
    """The config with what the checkpoint tells of registers, LayerScale and positions."""
    own, table = named.get("reg_token"), named.get("pos_embed")
    registers = own.shape[1] if own is not None and own.ndim == 3 else 0
    settings = {"registers": registers, "layer_scale": "blocks.0.ls1.gamma" in named, "position_grid": None}
    config = config.model_copy(update=settings)
    if table is not None and table.ndim == 3:
        return _take_positions(named, config)
    if own is None:
        if config.layer_scale:
            raise UserError(f"--weights: {path}: it holds no positions, and is no DINOv3, which needs none")
        return config
    if not registers:
        del named["reg_token"]
    expected, given = periods(config.width // config.heads), named.pop("rope_embed.periods", None)
    if given is not None and not (given.shape == expected.shape and torch.allclose(given, expected, rtol=1e-2)):
        raise UserError(f"--weights: {path}: the periods of its rotary positions are not those of DINOv3")
    return config.model_copy(update={"rope": True, "norm_eps": NORM_EPS})


def _take_positions(named: dict[str, Tensor], config: VitArchitecture) -> VitArchitecture:
    """Drop a table that is the fixed sin-cos one anyway (MAE's); keep a learned one, with its side in the config.

    It gets a position for the class token where it has none, and none for registers: theirs are added to them.
    """
    table = named["pos_embed"]
    side = math.isqrt(table.shape[1])
    own = table.shape[1] - side * side
    if own == 0:
        table = torch.cat([table.new_zeros(1, 1, table.shape[2]), table], dim=1)
    elif config.registers and own == 1 + config.registers:
        named["reg_token"] = named["reg_token"] + table[:, 1:own]
        table = torch.cat([table[:, :1], table[:, own:]], dim=1)
    named["pos_embed"] = table
    if table.shape[1] != 1 + side * side or table.shape[2] % 4:
        return config.model_copy(update={"position_grid": max(1, side)})
    if torch.allclose(table[0, 1:], sincos_positions(side, side, table.shape[2]), atol=1e-3):
        named["cls_token"] = named["cls_token"] + table[:, :1] if "cls_token" in named else table[:, :1]
        del named["pos_embed"]
        return config
    return config.model_copy(update={"position_grid": side})


def _fit_patches(named: dict[str, Tensor], config: EncoderConfig, path: Path, scaling: str) -> None:
    kernel, bias = (named.get(f"patch_embed.proj.{kind}") for kind in ("weight", "bias"))
    if kernel is None or bias is None or kernel.ndim != 4 or kernel.shape[2] != kernel.shape[3]:
        return  # listed among the problems
    if kernel.shape[1] != 3 and scaling in SCALINGS:
        raise UserError(
            f"--weights: {path} was made for {kernel.shape[1]} channels, and --weights_input {scaling} is of red, "
            "green and blue; give --weights_input unit where it takes values in [0, 1]"
        )
    if kernel.shape[3] != config.architecture.patch:
        log.info(
            "%s: its patches of %d px are resampled to %d px", path.name, kernel.shape[3], config.architecture.patch
        )
    kernel, bias = with_scaling(resampled(kernel, config.architecture.patch), bias, config.input.channels, scaling)
    named |= {"patch_embed.proj.weight": kernel, "patch_embed.proj.bias": bias}


def _problems(found: dict[str, Tensor], needed: dict[str, Tensor]) -> list[str]:
    shapes = [
        f"{name} is {tuple(found[name].shape)}, needed is {tuple(needed[name].shape)}"
        for name in needed
        if name in found and found[name].shape != needed[name].shape
    ]
    missing = [f"{name} is missing" for name in needed if name not in found]
    extra = [f"{name} has no place" for name in found if name not in needed]
    return shapes + missing + extra
