"""Fixtures of the tests of the object store."""

from pathlib import Path

import pytest
from s3_server import Server

from shared.store import transfer


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PART_BYTES", 5 * 2**20)  # the least that S3 takes
    monkeypatch.setattr(transfer, "PARALLEL_TRANSFERS", 1)


@pytest.fixture
def own_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A server that a test may kill."""
    server = Server(tmp_path / "server")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    yield server
    server.stop()
