"""Containers end with the run that started them, even if it is killed. Needs a Docker engine and the stages' image."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.run_folder import record

ROOT = Path(__file__).parents[3]
OWNER = (23456, 23457)
"""Numbers of a user and a group without a name."""
pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]


def containers() -> set[str]:
    """Names of the running containers of any run."""
    listed = subprocess.run(
        ["docker", "ps", "--filter", "label=cytoloom.run", "--format", "{{.Names}}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(listed.stdout.split())


def settings(container: str) -> dict[str, object]:
    """What `docker run` gave a container."""
    found = json.loads(subprocess.run(["docker", "inspect", container], capture_output=True, check=True).stdout)[0]
    return found["HostConfig"] | {"User": found["Config"]["User"]}


def until(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 240) -> None:
    """Wait for a condition while `process` runs."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


@pytest.fixture
def start(tmp_path: Path, stage_images: dict[str, str], nuclei) -> Callable[[], subprocess.Popen]:
    """Return a function that starts a run on one image of real nuclei, which would train for hours."""
    import tifffile

    source = tmp_path / 'so:ur,"ce"'
    source.mkdir()
    tifffile.imwrite(source / "a.tif", nuclei[:128, :128, 0])
    if os.getuid() == 0:
        (tmp_path / "run").mkdir()
        os.chown(tmp_path / "run", *OWNER)
    words = ["run", "label_free", "--source", source, "--out", tmp_path / "run", "--no-cache"]
    words += ["--backend", "docker", "--set", "rounds=1"]
    words += ["--set", "pretrain.crop=64", "--set", "pretrain.batch_size=2", "--param", "pretrain_steps=1000000"]
    env = {**os.environ, "CYTOLOOM_THREADS": "1", "CYTOLOOM_DEVICE": "cpu"}

    def begin() -> subprocess.Popen:
        command = [sys.executable, "-m", "pipelines", *map(str, words)]
        return subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    return begin


def state(run: Path, task: str) -> str:
    return record.load(run).tasks[task].state if (run / record.RUN_RECORD).exists() else ""


def test_kill_9_then_the_same_command_then_ctrl_c(start, tmp_path: Path) -> None:
    run, before = tmp_path / "run", containers()
    first = start()
    until(lambda: state(run, "pretrain") == "running" and bool(containers() - before), first)
    first.kill()
    first.communicate()
    (orphan,) = containers() - before  # docker itself does not end it
    found = settings(orphan)
    assert found["CapDrop"] == ["ALL"] and "no-new-privileges" in found["SecurityOpt"]
    assert found["NetworkMode"] == "none", "nothing is in a store"
    assert {mount["Type"] for mount in found["Mounts"]} == {"bind"} and not found["Binds"]
    if os.getuid() == 0:
        assert found["User"] == "{}:{}".format(*OWNER), "the run folder belongs to a user"
        assert (run / "ingest/images/artifact.json").stat().st_uid == OWNER[0]
    identity = subprocess.run(["docker", "inspect", "-f", "{{.Id}}", orphan], capture_output=True, text=True).stdout
    second = start()

    def replaced() -> bool:
        found = subprocess.run(["docker", "inspect", "-f", "{{.Id}}", orphan], capture_output=True, text=True)
        return found.returncode == 0 and found.stdout != identity and orphan in containers()

    until(replaced, second)
    assert record.load(run).tasks["ingest"].origin == "run folder"
    second.send_signal(signal.SIGINT)
    _, errors = second.communicate(timeout=120)
    assert second.returncode == 130 and "repeat the command to continue" in errors
    assert containers() == before
