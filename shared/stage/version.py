"""Say which code makes an artifact: a hash of what it depends on, not a commit.

`docker/build.sh` imports this module before any package is installed, so it needs the standard library only.
"""

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.stage.import_closure import STAGE_PACKAGES, import_closure

if TYPE_CHECKING:
    from shared.stage.declaration import Stage

ROOT = Path(__file__).parents[2]


@cache
def code_version(stage: "type[Stage]") -> str:
    """Hash of the modules that the stage imports, the data beside them, and the lock files of its image targets.

    An edit re-runs the stages that import the edited file, and no others.
    """
    return _hash([*import_closure(ROOT, f"components.{stage.slug()}"), *_lock_files(stage)])


@cache
def image_version() -> str:
    """Hash of all that goes into the images of the stages: their tag."""
    locks = [ROOT / f"requirements/{name}.lock" for name in ("cpu", "torch", "export", "faiss")]
    return _hash([*_code_and_data(), *locks, ROOT / "docker/Dockerfile"])


def task_key(stage: str, parameters: dict[str, Any], inputs: dict[str, str], version: str) -> str:
    """Key of a task in caches and among checkpoints: equal keys, equal outputs.

    parameters: JSON values, all of them; inputs: input name -> content digest; version: `code_version` of the stage.
    """
    return hashlib.sha256(json.dumps([stage, parameters, inputs, version], sort_keys=True).encode()).hexdigest()[:32]


def _lock_files(stage: "type[Stage]") -> list[Path]:
    """Lock files of the Docker targets that the stage runs in."""
    return [ROOT / f"requirements/{target}.lock" for target in (stage.image, stage.gpu_image) if target]


def _code_and_data() -> list[Path]:
    """Code and data of every stage; documentation and what Python or an editor leave behind are left out."""
    return [
        path
        for package in STAGE_PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file()
        and path.suffix not in (".md", ".pyc")
        and not any(part.startswith((".", "__pycache__")) for part in path.relative_to(ROOT).parts)
    ]


def _hash(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()[:16]
