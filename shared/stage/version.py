"""Which code made an artifact: a hash of what it can depend on, not a commit."""

import hashlib
import json
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCKS = [ROOT / f"requirements/{name}.lock" for name in ("cpu", "torch", "export")]
IMAGE_FILES = [*LOCKS, ROOT / "requirements/faiss.lock", ROOT / "docker/Dockerfile"]


def _hash(paths: list[Path], extra: str = "") -> str:
    digest = hashlib.sha256(extra.encode())
    for path in sorted(paths):
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0{len(path.read_bytes())}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def code_version(stage: str) -> str:
    """Hash of the stage's folder, `shared/` and the lock files: editing a README re-runs nothing."""
    return _hash([*_files(f"components/{stage}"), *_files("shared"), *LOCKS])


@cache
def image_version() -> str:
    """Hash of all that goes into the images of the stages: their tag."""
    return _hash([*_files("components"), *_files("shared"), *IMAGE_FILES])


def _files(folder: str) -> list[Path]:
    """Code and data below a folder; documentation and what Python or an editor leave behind are left out."""
    return [
        path
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
        and path.suffix not in (".md", ".pyc")
        and not any(part.startswith((".", "__pycache__")) for part in path.relative_to(ROOT).parts)
    ]


def task_key(stage: str, parameters: dict, inputs: dict[str, str], version: str = "") -> str:
    """Key of a task in caches and among checkpoints: equal keys, equal outputs.

    parameters: JSON values, all of them; inputs: input name -> content digest; version: `code_version(stage)`.
    """
    parts = [stage, parameters, inputs, version or code_version(stage)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
