"""Copies of a run's artifacts in S3, at `PREFIX/<task>/<output>` as in the run folder."""

import json
from contextlib import suppress
from pathlib import Path

from pipelines.cache import Receipt
from shared import store
from shared.artifacts import MANIFEST, is_artifact
from shared.errors import UserError


def send(receipt: Receipt, folder: Path, uri: str) -> None:
    """Send each artifact of a finished task below `uri`, unless the same one stands there already."""
    for made in receipt.outputs.values():
        path = folder / made.path
        if is_artifact(path) and _digest_at(f"{uri}/{made.path}") != made.digest:
            store.send(path, f"{uri}/{made.path}")


def _digest_at(uri: str) -> str:
    if not store.exists(f"{uri}/{MANIFEST}"):
        return ""
    with suppress(json.JSONDecodeError, UserError):
        return str(json.loads(store.get(f"{uri}/{MANIFEST}")).get("digest", ""))
    return ""
