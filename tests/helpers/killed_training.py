"""Kill a training stage, start it again, and compare with a run that was not killed."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from real_labels import ROOT

from shared.artifacts.manifest import read_manifest


def assert_killed_training_resumes(command: Callable[[Path], list[str]], folder: Path, timeout: float = 300) -> None:
    """kill -9 once a checkpoint is there; the same command goes on from it, and ends in the same weights.

    command: where the stage writes its model -> its command line; folder: an empty one; timeout: s for each run.
    """
    environment = {**os.environ, "CYTOLOOM_CHECKPOINTS": str(folder / "kept"), "CYTOLOOM_CHECKPOINT_SECONDS": "0"}
    options = {"cwd": ROOT, "env": environment, "stderr": subprocess.PIPE, "text": True}
    unbroken = subprocess.run(command(folder / "unbroken"), **options, timeout=timeout)
    assert unbroken.returncode == 0, unbroken.stderr
    killed = subprocess.Popen(command(folder / "resumed"), **options)
    deadline = time.monotonic() + timeout
    while not list((folder / "kept").rglob("checkpoint.pt")) and killed.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not (folder / "resumed").exists()
    again = subprocess.run(command(folder / "resumed"), **options, timeout=timeout)
    assert again.returncode == 0, again.stderr
    assert "resuming from the checkpoint" in again.stderr
    assert read_manifest(folder / "resumed").digest == read_manifest(folder / "unbroken").digest
