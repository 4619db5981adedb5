"""Folders for temporary files: removed at the end, and what a killed process left is removed by the next."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shared.stage.execution import scratch
from shared.stage.execution.output_folder import SCRATCH_PREFIX
from shared.stage.execution.scratch import scratch_folder

ROOT = Path(__file__).parents[4]
HOLD = (
    "import sys\nfrom shared.stage.execution.scratch import scratch_folder\n"
    "with scratch_folder(sys.argv[1]) as folder:\n"
    "    (folder / 'file').touch()\n    print(folder, flush=True)\n    sys.stdin.read()\n"
)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Folders are old enough at once."""
    monkeypatch.setattr(scratch, "_MIN_AGE", -1.0)


def holder(root: Path) -> tuple[subprocess.Popen, Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return process, Path(process.stdout.readline().strip())


def test_a_folder_in_use_stays_and_that_of_a_killed_process_goes(tmp_path):
    process, held = holder(tmp_path)
    other = tmp_path / f"{SCRATCH_PREFIX}file"
    other.touch()
    (tmp_path / "no-scratch").mkdir()
    (tmp_path / f"{SCRATCH_PREFIX}link").symlink_to(tmp_path / "no-scratch")
    with scratch_folder(str(tmp_path)) as own:
        assert (held / "file").exists()
        with scratch_folder(str(tmp_path)) as inner:
            assert own.is_dir() and inner.is_dir() and held.is_dir()
    assert not own.exists() and not inner.exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert held.is_dir()
    with scratch_folder(str(tmp_path)):
        assert not held.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [other.name, f"{SCRATCH_PREFIX}link", "no-scratch"]


def test_young_folders_stay(tmp_path, monkeypatch):
    """Their process may be about to lock them."""
    monkeypatch.setattr(scratch, "_MIN_AGE", 60.0)
    (tmp_path / f"{SCRATCH_PREFIX}new").mkdir()
    with scratch_folder(str(tmp_path)):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [f"{SCRATCH_PREFIX}new"]


@pytest.mark.skipif(os.getuid() != 0, reason="needs the right to give a folder away")
def test_folders_of_other_users_stay(tmp_path):
    (tmp_path / f"{SCRATCH_PREFIX}theirs").mkdir()
    os.chown(tmp_path / f"{SCRATCH_PREFIX}theirs", 12345, 12345)
    with scratch_folder(str(tmp_path)):
        pass
    assert (tmp_path / f"{SCRATCH_PREFIX}theirs").is_dir()
