"""Bring the input artifacts of a task here, and verify them."""

from collections.abc import Mapping
from pathlib import Path

from shared.artifacts.kinds import ImageSet
from shared.artifacts.manifest import MANIFEST, Manifest, read_manifest, seal, verify
from shared.stage.execution.places import is_remote, naming
from shared.stage.invocation import Invocation
from shared.system.log import log


def fetch_inputs(invocation: Invocation, places: Mapping[str, Path]) -> dict[str, str]:
    """Let every input stand at its place, verified: fetched, or ingested where plain images are given for an ImageSet.

    places: port -> path. Returns input -> content digest. Raises UserError that names the input.
    """
    return {
        name: _fetch_input(name, port.kind, invocation.locations[name], places[name]).digest
        for name, port in invocation.stage.ports("in").items()
        if name in invocation.locations
    }


def _fetch_input(name: str, kind: type, location: str, place: Path) -> Manifest:
    place.parent.mkdir(parents=True, exist_ok=True)
    with naming(name):
        if is_remote(location):
            from shared import store

            if kind is not ImageSet or store.exists(f"{location.rstrip('/')}/{MANIFEST}"):
                store.fetch(location, place, kind)  # which verifies it
                return read_manifest(place)
        elif place == Path(location).absolute():
            return verify(place, kind)
        elif kind is not ImageSet or not Path(location).exists():
            return read_manifest(Path(location), kind)  # raises: there is no manifest
    return _ingest(name, location, place)


def _ingest(name: str, location: str, place: Path) -> Manifest:
    from shared.readers.ingestion import ingest_plain

    log.info("--%s: %s holds plain images; ingesting them on the fly", name, location)
    ingest_plain(location, place)
    return seal(place, ImageSet, stage="ingest")
