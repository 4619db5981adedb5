"""Write the command that runs a task again, with new places for its outputs."""

import json
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from shared.stage.declaration import Stage
from shared.system.devices import KERNEL_VARIABLES, THREADS

_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION")


def rerun_command(stage: Stage, locations: Mapping[str, str], image: str = "") -> str:
    """Return one line for a shell: `python -m components ...`, or `docker run ...` where the task runs in an image.

    locations: port -> path or uri; outputs get the suffix `-again`. image: reference of the image, by default
    `CYTOLOOM_IMAGE`, which containers set. Secrets are passed on by name from the environment, never by value.
    """
    image = image or os.environ.get("CYTOLOOM_IMAGE", "")
    words = [stage.slug()]
    mounts: dict[str, str] = {}
    for name, port in stage.ports().items():
        if name not in locations or not port.is_artifact:
            continue
        location = locations[name].rstrip("/")
        if "://" not in location:
            location = str(Path(location).absolute())
            _mount(mounts, location, port.direction)
        words += [f"--{name}", location if port.direction == "in" else f"{location}-again"]
    for name, value in _changed(stage).items():
        words += [f"--{name}", value]
        if value.startswith("/") and Path(value).exists():
            mounts.setdefault(value, "ro")
    if not image:
        return shlex.join([sys.executable, "-m", "components", *words])
    return shlex.join([*_docker_run(mounts), image, *words])


def _mount(mounts: dict[str, str], location: str, direction: str) -> None:
    """Add the folder that a container needs for an input, or for an output written again: folder -> ro or rw."""
    folder = location if direction == "in" else str(Path(location).parent)
    if folder == "/":  # the output is a mount point itself, as is possible inside a container
        folder = f"{location}-again"
    mounts[folder] = "ro" if direction == "in" and mounts.get(folder) != "rw" else "rw"


def _docker_run(mounts: Mapping[str, str]) -> list[str]:
    """Return the words before the image: as the present user, with the environment's secrets by name."""
    words = ["docker", "run", "--rm", "--network", "host", "--user", f"{os.getuid()}:{os.getgid()}"]
    for name in (*_SECRETS, THREADS, *KERNEL_VARIABLES):
        words += ["--env", name] if name in os.environ or name in _SECRETS else []
    for folder, mode in sorted(mounts.items()):
        words += ["--volume", f"{folder}:{folder}" + (":ro" if mode == "ro" else "")]
    return words


def _changed(stage: Stage) -> dict[str, str]:
    """Return the parameters that differ from their defaults, as text for the command line."""
    values = stage.parameter_values()
    fields = stage.parameters()
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
        if fields[name].is_required() or value != fields[name].get_default(call_default_factory=True)
    }
