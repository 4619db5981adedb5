"""The device of a stage, and the log line that names it."""

import logging

import pytest
import torch

from shared.system.devices import device, faiss_gpus, threads
from shared.system.errors import UserError


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CYTOLOOM_DEVICE", raising=False)
    monkeypatch.setenv("CYTOLOOM_THREADS", "1")
    faiss_gpus.cache_clear()
    yield
    faiss_gpus.cache_clear()


def test_the_device_is_chosen_and_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(logging.getLogger("cytoloom"), "propagate", True)
    caplog.set_level(logging.INFO, logger="cytoloom")
    found = device()
    assert found == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setenv("CYTOLOOM_DEVICE", "cpu")
    assert device() == "cpu" and threads() == 1
    assert caplog.messages[-1] == "computing on the CPU, 1 threads"
    assert faiss_gpus() == 0
    assert caplog.messages[-1] == "clustering on the CPU, 1 threads"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CYTOLOOM_DEVICE", "cuda")
    with pytest.raises(UserError, match="CYTOLOOM_DEVICE: cuda, but PyTorch finds no GPU; unset it, or set it"):
        device()
