"""Read the tensors of a checkpoint file; nothing in it is executed."""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shared.system.errors import UserError

_WRAPPERS = ("model", "state_dict", "teacher", "student")
"""Keys under which training scripts store the weights."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Parameter name -> tensor of a `.safetensors` or a weights-only `.pth` file."""
    if not path.is_file():
        raise UserError(f"--weights: {path}: no such file; give the path of a checkpoint")
    content = _content(path)
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise UserError(f"--weights: {path}: it contains no tensors; save the model's state dict")
    return tensors


def _content(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"--weights: {path}: it contains Python objects or is no torch file; only tensors are read, since anything "
            "else could run code. Save the state dict alone, preferably as .safetensors"
        ) from error
    except Exception as error:  # the two libraries raise many types
        raise UserError(
            f"--weights: {path}: it cannot be read ({type(error).__name__}: {str(error)[:200]}); give a .safetensors "
            "or a weights-only .pth file"
        ) from error
