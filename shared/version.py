"""Which code made an artifact: a hash of what it can depend on, not a commit."""

import hashlib
import json
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK = "requirements/torch.lock"


def _hash(paths: list[Path], extra: str = "") -> str:
    digest = hashlib.sha256(extra.encode())
    for path in sorted(paths):
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0{len(path.read_bytes())}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def code_version(stage: str) -> str:
    """Hash of the stage's folder, `shared/` and the lock file: editing a README re-runs nothing."""
    files = [*(ROOT / "components" / stage).rglob("*.py"), *(ROOT / "shared").rglob("*.py")]
    return _hash([*files, ROOT / LOCK])


@cache
def image_version() -> str:
    """Hash of all that goes into a stage image: its tag."""
    files = [p for folder in ("components", "shared") for p in (ROOT / folder).rglob("*.py")]
    return _hash([*files, ROOT / LOCK, ROOT / "docker/Dockerfile"])


def task_key(stage: str, parameters: dict, inputs: dict[str, str], version: str = "") -> str:
    """Key of a task in caches and among checkpoints: equal keys, equal outputs.

    parameters: JSON values, all of them; inputs: input name -> content digest; version: `code_version(stage)`.
    """
    import json

    parts = [stage, parameters, inputs, version or code_version(stage)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
