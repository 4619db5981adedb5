"""Write the command that runs a task again, with new places for its outputs."""

import json
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from shared.stage.declaration import Stage
from shared.system.devices import THREADS

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
            folder = location if port.direction == "in" else str(Path(location).parent)
            if folder == "/":  # the output is a mount point of its own, as may be inside a container
                folder = f"{location}-again"
            mounts[folder] = "ro" if port.direction == "in" and mounts.get(folder) != "rw" else "rw"
        words += [f"--{name}", location if port.direction == "in" else f"{location}-again"]
    for name, value in _changed(stage).items():
        words += [f"--{name}", value]
        if value.startswith("/") and Path(value).exists():
            mounts.setdefault(value, "ro")
    if not image:
        return shlex.join([sys.executable, "-m", "components", *words])
    docker = ["docker", "run", "--rm", "--network", "host", "--user", f"{os.getuid()}:{os.getgid()}"]
    for name in (*_SECRETS, THREADS):
        docker += ["--env", name] if name in os.environ or name in _SECRETS else []
    for folder, mode in sorted(mounts.items()):
        docker += ["--volume", f"{folder}:{folder}" + (":ro" if mode == "ro" else "")]
    return shlex.join([*docker, image, *words])


def _changed(stage: Stage) -> dict[str, str]:
    """Return the parameters that differ from their defaults, as text for the command line."""
    values = stage.parameter_values()
    fields = stage.parameters()
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
        if fields[name].is_required() or value != fields[name].get_default(call_default_factory=True)
    }
