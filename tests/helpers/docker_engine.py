"""Provide a Docker engine and the images of the stages for tests marked `docker`.

An engine that answers is used. Otherwise `docker/engine.sh` starts one for the duration of the tests. Images of the
present code are built unless they exist.
"""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCAL_BASE = "local/base:ci"


def script(*words: str, **environment: str) -> str:
    """Run a script of docker/ and return its standard output. Raises RuntimeError with the end of its messages."""
    done = subprocess.run(words, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed ({done.returncode}):\n{done.stderr[-3000:]}")
    return done.stdout.strip()


def answers() -> bool:
    """Whether a Docker engine answers."""
    try:
        return subprocess.run(["docker", "version"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@contextmanager
def engine() -> Iterator[None]:
    """Start an engine and set DOCKER_HOST, unless one answers; stop it at the end."""
    if answers():
        yield
        return
    folder = os.environ.get("CYTOLOOM_ENGINE", "build/engine")
    host = script("docker/engine.sh", "start", folder).removeprefix("export DOCKER_HOST=")
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = host
    try:
        yield
    finally:
        script("docker/engine.sh", "stop", folder)
        os.environ.pop("DOCKER_HOST")
        if before is not None:
            os.environ["DOCKER_HOST"] = before


def images(*targets: str) -> dict[str, str]:
    """Return target -> reference of the image with the present code; build those that do not exist."""
    base = os.environ.get("BASE_IMAGE", "")
    if not base:
        default = re.search(r"^ARG BASE_IMAGE=(\S+)", (ROOT / "docker/Dockerfile").read_text(), re.MULTILINE)
        pulled = subprocess.run(["docker", "pull", "--quiet", default[1]], capture_output=True)
        if pulled.returncode:  # no image registry within reach
            script("docker/engine.sh", "base", LOCAL_BASE)
            base = LOCAL_BASE
    given = {"TENSORRT_LIBS": os.environ.get("TENSORRT_LIBS", "")} | ({"BASE_IMAGE": base} if base else {})
    return {target: script("docker/build.sh", target, **given).splitlines()[-1] for target in targets}
