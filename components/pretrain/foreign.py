"""Start from somebody else's checkpoint: timm's, DINO's or MAE's vision transformer, weights only."""

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shared.errors import UserError
from shared.models.encoder import Encoder, EncoderConfig, sincos_positions

WRAPPERS = ("model", "state_dict", "teacher", "student")
"""Keys under which training scripts keep the weights."""
PREFIXES = re.compile(r"^(module\.|backbone\.|encoder\.|vit\.)+")
NOT_ENCODER = re.compile(r"^(head|fc_norm|decoder|mask_token|pre_logits|last_layer|norm_pre|dist_token)")
"""Parts of other tasks, which an encoder does without."""


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


def adapted(state: dict[str, Tensor], config: EncoderConfig, path: Path) -> tuple[Encoder, EncoderConfig]:
    """An encoder with the weights, its patch embedding fitted to the channels, its positions as they were.

    Raises UserError that lists what does not fit `config`.
    """
    named = {PREFIXES.sub("", name): tensor.float() for name, tensor in state.items()}
    if "norm.weight" not in named and "fc_norm.weight" in named:  # timm's name for it under average pooling
        named |= {name.removeprefix("fc_"): tensor for name, tensor in named.items() if name.startswith("fc_norm.")}
    named = {name: tensor for name, tensor in named.items() if not NOT_ENCODER.match(name)}
    config = _take_positions(named, config)
    if (kernel := named.get("patch_embed.proj.weight")) is not None and kernel.ndim == 4:
        named["patch_embed.proj.weight"] = fit_channels(kernel, config.channels)
    encoder = Encoder(config)
    problems = _problems(named, encoder.state_dict())
    if problems:
        shown = "; ".join(problems[:6]) + (f"; and {len(problems) - 6} more" if len(problems) > 6 else "")
        raise UserError(
            f"--weights: {path} does not fit --size {config.size} --patch {config.patch} "
            f"(width {config.width}, depth {config.depth}): {shown}"
        )
    encoder.load_state_dict(named)
    return encoder, config


def _take_positions(named: dict[str, Tensor], config: EncoderConfig) -> EncoderConfig:
    """Drop a table that is the fixed sin-cos one anyway (MAE's); keep a learned one, with its side in the config."""
    table = named.get("pos_embed")
    if table is None or table.ndim != 3:
        return config.model_copy(update={"position_grid": 0})
    side = int(max(0, table.shape[1] - 1) ** 0.5)
    if side * side + 1 != table.shape[1] or table.shape[2] % 4:
        return config.model_copy(update={"position_grid": max(1, side)})
    if torch.allclose(table[0, 1:], sincos_positions(side, side, table.shape[2]), atol=1e-3):
        named["cls_token"] = named["cls_token"] + table[:, :1] if "cls_token" in named else table[:, :1]
        del named["pos_embed"]
        return config.model_copy(update={"position_grid": 0})
    return config.model_copy(update={"position_grid": side})


def fit_channels(kernel: Tensor, channels: int) -> Tensor:
    """Patch embedding (width, C, p, p) for another number of channels, as timm's `adapt_input_conv` makes it.

    One channel gets the sum; more than there were get copies in turn, scaled down.
    """
    have = kernel.shape[1]
    if have == channels:
        return kernel
    if channels == 1:
        return kernel.sum(dim=1, keepdim=True)
    return kernel[:, [c % have for c in range(channels)]] * (have / channels)


def _problems(found: dict[str, Tensor], needed: dict[str, Tensor]) -> list[str]:
    shapes = [
        f"{name} is {tuple(found[name].shape)}, needed is {tuple(needed[name].shape)}"
        for name in needed
        if name in found and found[name].shape != needed[name].shape
    ]
    missing = [f"{name} is missing" for name in needed if name not in found]
    extra = [f"{name} has no place" for name in found if name not in needed]
    return shapes + missing + extra
