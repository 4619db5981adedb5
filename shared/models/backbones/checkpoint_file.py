"""Read the tensors of a checkpoint file; nothing in it is executed."""

import pickle
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shared.system.errors import UserError

_WRAPPERS = ("model", "state_dict", "teacher", "student")
"""Keys under which training scripts store the weights."""


def read_tensors(path: Path, flag: str = "--weights") -> dict[str, Tensor]:
    """Parameter name -> tensor of a `.safetensors` or a weights-only `.pth` file; flag: named in errors."""
    if not path.is_file():
        raise UserError(f"{flag}: {path}: no such file; give the path of a checkpoint")
    content = _content(path, flag)
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise UserError(f"{flag}: {path}: it contains no tensors; save the model's state dict")
    return tensors


@contextmanager
def local_file(location: str) -> Iterator[Path]:
    """Yield the file at a path, or a temporary copy of the one at a uri."""
    if "://" not in location:
        yield Path(location)
        return
    from shared import store

    with tempfile.TemporaryDirectory(prefix="cytoloom-") as temporary:
        path = Path(temporary, location.rsplit("/", 1)[1])
        path.write_bytes(store.get(location))
        yield path


def _content(path: Path, flag: str) -> Any:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{flag}: {path}: it contains Python objects or is no torch file; only tensors are read, since anything "
            "else could run code. Save the state dict alone, preferably as .safetensors"
        ) from error
    except Exception as error:  # the two libraries raise many types
        raise UserError(
            f"{flag}: {path}: it cannot be read ({type(error).__name__}: {str(error)[:200]}); give a .safetensors "
            "or a weights-only .pth file"
        ) from error
