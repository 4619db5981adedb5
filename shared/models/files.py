"""Read and write the files of a Model artifact: `model.safetensors`, `config.json`, `MODEL_CARD.md`. Never pickle."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from shared.models.config import AbsentConfig, ModelConfig
from shared.system.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "MODEL_CARD.md"
MAX_CONFIG_BYTES = 64 * 2**20
"""Size of `config.json` above which it is not read."""
C = TypeVar("C", bound=BaseModel)


def save_model(folder: Path, state: "dict[str, Tensor]", config: BaseModel, card: str) -> None:
    """Write the three files. Equal weights and configs give equal bytes: safetensors gets no metadata, JSON is sorted.

    state: parameter name -> tensor on any device; config: a member of the union `ModelConfig`; card: Markdown.
    """
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: state[name].detach().cpu().contiguous().clone() for name in sorted(state)}
    (folder / WEIGHTS).write_bytes(save(tensors))  # save_file would make it readable for the present user alone
    save_config(folder, config)
    (folder / CARD).write_text(card.rstrip() + "\n", encoding="utf-8")


def save_absent(folder: Path, reason: str) -> None:
    """Write a Model artifact without a network, for a stage that had nothing to learn from; reason: for people.

    Loads no PyTorch: `safetensors` writes a file of no tensors as these bytes, the length of an empty header first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes((8).to_bytes(8, "little") + b"{}".ljust(8))
    save_config(folder, AbsentConfig())
    (folder / CARD).write_text(f"# No model\n\n{reason}\n", encoding="utf-8")


def is_absent(folder: Path) -> bool:
    """Say whether `save_absent` wrote the model in `folder`. Raises ArtifactError where it cannot be read."""
    return bool(_read_json(folder)["kind"] == "absent")


def save_config(folder: Path, config: BaseModel) -> None:
    """Write `config.json` alone."""
    (folder / CONFIG).write_text(json.dumps(config.model_dump(mode="json"), indent=1, sort_keys=True) + "\n")


def load_config(folder: Path, *expected: type[C]) -> C:
    """Read `config.json`, which must be of one of the expected config classes.

    Raises ArtifactError, which names the kind found and the kinds expected, or the first field that is wrong.
    """
    content = _read_json(folder)
    kinds = [config.model_fields["kind"].default for config in expected]
    if content["kind"] not in kinds:
        wanted = " or ".join(repr(kind) for kind in kinds)
        raise ArtifactError(f"{folder}: a model of kind {content['kind']!r}; give one of kind {wanted}")
    try:
        config: C = TypeAdapter(ModelConfig).validate_python(content)  # type: ignore[assignment]
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:])
        raise ArtifactError(f"{folder / CONFIG}: {field}: {first['msg']}; create the model again") from error
    return config


def _read_json(folder: Path) -> dict[str, Any]:
    """Content of `config.json`, an object with a `kind`."""
    path = folder / CONFIG
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ArtifactError(f"{path}: larger than any config of a model; create the model again")
        content = json.loads(path.read_text())
    except OSError as error:
        raise ArtifactError(f"{path}: {error.strerror}; give the folder of a model") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: not valid JSON ({error}); create the model again") from error
    if not isinstance(content, dict) or not isinstance(content.get("kind"), str):
        raise ArtifactError(f"{path}: the kind of the model is missing; create the model again")
    return content


def stored_values(folder: Path) -> int:
    """Count the values of all tensors in `model.safetensors` by its header. Raises ArtifactError if it is damaged."""
    from safetensors import SafetensorError, safe_open

    path = folder / WEIGHTS
    try:
        with safe_open(path, framework="np") as tensors:
            return sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such file; create the model again") from error
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path}: not a readable safetensors file ({error}); create the model again") from error


def load_state(folder: Path, device: str = "cpu") -> "dict[str, Tensor]":
    """Read `model.safetensors`: parameter name -> tensor. Raises ArtifactError where it cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / WEIGHTS
    try:
        return load_file(path, device=device)
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such file; create the model again") from error
    except SafetensorError as error:
        raise ArtifactError(f"{path}: not a readable safetensors file ({error}); create the model again") from error
