"""Artifacts and call counters for the tests of the object store."""

from pathlib import Path

import pytest

from shared.artifacts.kinds import Files
from shared.artifacts.manifest import seal


def artifact(folder: Path, size: int = 1000) -> Path:
    """Write a sealed artifact with a file of `size` bytes in a subfolder."""
    (folder / "shards").mkdir(parents=True)
    (folder / "shards/000.tar").write_bytes(bytes(i * i % 251 for i in range(1000)) * (size // 1000))
    (folder / "index.jsonl").write_text('{"key": "a"}\n')
    (folder / "empty").write_bytes(b"")
    seal(folder, Files, stage="ingest")
    return folder


def counted(monkeypatch: pytest.MonkeyPatch, module, name: str, then=lambda count: None) -> list[tuple]:
    """Record the finished calls of a function; `then` gets their number before the next one."""
    calls: list[tuple] = []
    real = getattr(module, name)

    def call(*args):
        then(len(calls))
        result = real(*args)
        calls.append(args)
        return result

    monkeypatch.setattr(module, name, call)
    return calls
