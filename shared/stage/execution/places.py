"""Check where inputs and outputs are, and choose where the stage finds them while it runs."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from shared.artifacts.manifest import is_artifact
from shared.stage.declaration import Port
from shared.stage.execution.output_folder import OutputFolder
from shared.stage.invocation import Invocation
from shared.system.errors import UserError
from shared.system.suggestions import did_you_mean


def is_remote(location: str) -> bool:
    """Say whether a location is the uri of a store rather than a path."""
    return "://" in location


@contextlib.contextmanager
def naming(port: str) -> Iterator[None]:
    """Begin the message of a UserError with the input or output that it is about."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"--{port}: {error}") from error


def check_locations(invocation: Invocation) -> None:
    """Raise UserError for an unknown or missing input or output, or one that lies in another."""
    ports = invocation.stage.ports()
    if unknown := sorted(set(invocation.locations) - set(ports)):
        near = did_you_mean(unknown[0], ports)
        raise UserError(
            f"--{unknown[0]}: {invocation.stage.slug()} has no such input or output{near}; `--help` lists them"
        )
    if missing := [name for name, port in ports.items() if port.needed and name not in invocation.locations]:
        raise UserError(f"--{missing[0]}: no path is given; give one")
    _check_apart(invocation.locations, ports)


def _check_apart(locations: Mapping[str, str], ports: Mapping[str, Port]) -> None:
    """Raise UserError where an output would lie in an input or another output, or hold one."""
    places = {
        name: location.rstrip("/") if is_remote(location) else os.path.realpath(location)
        for name, location in locations.items()
    }
    for name, place in places.items():
        if ports[name].direction == "in":
            continue
        for other, elsewhere in places.items():
            if other != name and (f"{place}/").startswith(f"{elsewhere}/"):
                raise UserError(f"--{name}: {locations[name]} lies in --{other}; give it a place of its own")
            if ports[other].direction == "in" and (f"{elsewhere}/").startswith(f"{place}/"):
                raise UserError(f"--{name}: {locations[name]} holds --{other}; give it a place of its own")


def output_folders(invocation: Invocation) -> dict[str, OutputFolder]:
    """Return the folder of each output artifact that goes to this file system."""
    return {
        name: OutputFolder(name, Path(invocation.locations[name]), invocation.overwrite)
        for name, port in invocation.stage.ports("out").items()
        if port.is_artifact and name in invocation.locations and not is_remote(invocation.locations[name])
    }


def working_places(invocation: Invocation, folders: Mapping[str, OutputFolder], temporary: Path) -> dict[str, Path]:
    """Return port -> path that the stage reads or writes while it runs.

    temporary: folder for what is fetched from a store, ingested on the fly, or sent to a store afterwards.
    """
    ports = invocation.stage.ports()
    return {
        name: folders[name].partial if name in folders else _working_place(name, ports[name], location, temporary)
        for name, location in invocation.locations.items()
    }


def _working_place(name: str, port: Port, location: str, temporary: Path) -> Path:
    if not port.is_artifact:
        return Path(location)
    if is_remote(location) or (port.direction == "in" and not is_artifact(Path(location))):
        return temporary / port.direction / name
    return Path(location).absolute()


def scratch_root(invocation: Invocation) -> str:
    """Return the folder for temporary files: `CYTOLOOM_TMP`, the system's, or else the one that the outputs go to.

    Raises UserError where none of them can be written.
    """
    if given := os.environ.get("CYTOLOOM_TMP"):
        return given
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:  # all of the system's are read-only
        for output in output_folders(invocation).values():
            folder = next(parent for parent in (output.parent, *output.parent.parents) if parent.is_dir())
            if os.access(folder, os.W_OK):
                tempfile.tempdir = str(folder)  # for libraries that need one
                return tempfile.tempdir
    raise UserError("CYTOLOOM_TMP: no folder for temporary files is writable; set it, or `docker run --tmpfs /tmp`")
