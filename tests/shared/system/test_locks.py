"""Locks between real processes."""

import errno
import fcntl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.system.locks import file_lock, lock_note

ROOT = Path(__file__).parents[3]
HOLDER = """
import sys, pathlib
from shared.system.locks import file_lock
with file_lock(pathlib.Path(sys.argv[1]), note="the holder"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".lock"


@pytest.fixture
def holder(path: Path):
    """A process that holds the lock until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_lock_that_is_held_is_refused_at_once_and_names_its_holder(path: Path, holder) -> None:
    with file_lock(path, wait=False) as held:
        assert not held and lock_note(path) == "the holder"
    holder.communicate("")
    with file_lock(path, wait=False) as held:
        assert held
    assert not path.exists() and lock_note(path) == ""


def test_a_killed_holder_leaves_no_lock(path: Path, holder) -> None:
    holder.kill()
    holder.wait()
    assert path.exists()
    with file_lock(path, wait=False, note="mine") as held:
        assert held and lock_note(path) == "mine"
    assert not path.exists()


def test_whoever_waits_goes_on_when_the_holder_ends(path: Path, holder) -> None:
    ending = subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {holder.pid}"])
    began = time.monotonic()
    with file_lock(path) as held:
        assert held and time.monotonic() - began > 0.4
    ending.wait()


def test_one_process_cannot_hold_it_twice(path: Path) -> None:
    with file_lock(path) as first, file_lock(path, wait=False) as second:
        assert first and not second and path.exists()


def test_a_file_system_without_locks_is_gone_on_without(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with file_lock(path, wait=False) as held:
        assert held
    assert not path.exists()
