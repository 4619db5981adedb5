"""Checkpoints whose home is an S3 store: a real server."""

from pathlib import Path

import pytest
import torch
from torch import nn

from shared import store
from shared.training import checkpoint_location
from shared.training.checkpoint import Checkpoint


@pytest.fixture(autouse=True)
def no_location_left():
    yield
    checkpoint_location.set_location(None)


def test_a_pod_with_an_empty_disk_goes_on(tmp_path: Path, s3: str) -> None:
    model = nn.Linear(3, 2)
    checkpoint_location.set_location(tmp_path / "first", f"{s3}/kept/key")
    assert Checkpoint(model=model).resume() == (0, [])
    Checkpoint(model=model).save(4, [(3, 0.5)])

    other = nn.Linear(3, 2)
    checkpoint_location.set_location(tmp_path / "second", f"{s3}/kept/key")
    checkpoint = Checkpoint(model=other)
    assert checkpoint.resume() == (4, [(3, 0.5)])
    assert torch.equal(other.weight, model.weight)

    checkpoint_location.remove()
    assert not (tmp_path / "second").exists()
    assert store.listing(f"{s3}/kept") == []


def test_a_store_that_is_away_does_not_stop_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in {"ENDPOINT_URL": "http://127.0.0.1:9", "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr(checkpoint_location.log, "propagate", True)
    checkpoint_location.set_location(tmp_path / "kept", "s3://bucket/kept/key")
    Checkpoint(model=nn.Linear(1, 1)).save(1, [])
    assert (tmp_path / "kept/checkpoint.pt").is_file()
    assert "not copied" in caplog.text
