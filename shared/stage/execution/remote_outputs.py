"""Send output artifacts to a store, and check beforehand that they may be sent there."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from shared.stage.execution.places import is_remote, naming
from shared.stage.invocation import Invocation


def claim_remote(invocation: Invocation) -> None:
    """Raise UserError, before anything is computed, where an output in a store cannot be written or must not be."""
    for name, port in invocation.stage.ports("out").items():
        location = invocation.locations.get(name, "")
        if is_remote(location):
            from shared import store

            with naming(name):
                if port.is_artifact:
                    store.claim(location, invocation.overwrite)
                else:
                    store.probe(location)


def send_remote(invocation: Invocation, places: Mapping[str, Path], names: Iterable[str]) -> None:
    """Send the sealed outputs that go to a store. Raises UserError where an artifact has appeared there meanwhile."""
    for name in names:
        if is_remote(invocation.locations[name]):
            from shared import store

            if not invocation.overwrite:  # checked before, but computing takes its time
                with naming(name):
                    store.refuse_finished(invocation.locations[name])
            store.send(places[name], invocation.locations[name])
