"""Copies of a run's outputs in S3, at `PREFIX/<task>/<output>` as in the run folder, and its `run.json`.

Whose a prefix is, `run.json` there tells: a run that goes on finds its own identity in it, another run another's.
"""

import json
from contextlib import suppress
from pathlib import Path

from pipelines.executor.cache import Receipt
from pipelines.run_folder import record
from shared import store
from shared.artifacts.manifest import MANIFEST, is_artifact
from shared.store import s3
from shared.system.errors import UserError

PAGE = "report.html"


def check_prefix(uri: str) -> None:
    """Raise UserError where `--store` names no place that a run can have for itself."""
    try:
        _, key = s3.split(uri)
    except UserError as error:
        raise UserError(f"--store {uri}: s3://bucket/prefix is expected") from error
    if not key.strip("/"):
        raise UserError(f"--store {uri}: a run needs a prefix of its own in the bucket: {uri.rstrip('/')}/NAME")


def refuse_others(uri: str, identity: str) -> None:
    """Raise UserError where something else than the run `identity` has its artifacts below `uri`."""
    found = store.find(f"{uri}/{record.NAME}")
    if found is None:
        artifacts = [name for name, _, _ in store.listing(f"{uri}/") if name.rpartition("/")[2] == MANIFEST]
        whose = f"an artifact ({artifacts[0]}) that is not of this run" if artifacts else ""
    else:
        whose = "" if _identity(found) == identity else "another run"
    if whose:
        raise UserError(f"--store {uri}: {whose} stands there; give another prefix, or --overwrite")


def _identity(text: bytes) -> str | None:
    with suppress(ValueError, AttributeError):
        return json.loads(text).get("identity") or None
    return None


def send_record(run: Path, uri: str) -> None:
    """Send `run.json`: from now on the prefix is this run's."""
    store.put(f"{uri}/{record.NAME}", (run / record.NAME).read_bytes())


def send_conclusion(run: Path, uri: str) -> None:
    """Send the record as it is in the end, and the run's page."""
    send_record(run, uri)
    store.put(f"{uri}/{PAGE}", (run / PAGE).read_bytes())


def send(receipt: Receipt, folder: Path, uri: str) -> None:
    """Send the outputs of a finished task below `uri`; an artifact only where the same one does not stand there."""
    for made in receipt.outputs.values():
        path = folder / made.path
        if is_artifact(path):
            if _digest_at(f"{uri}/{made.path}") != made.digest:
                store.send(path, f"{uri}/{made.path}")
            continue
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        for file in files:  # pages, metrics, and what components make that are no stages
            store.put(f"{uri}/{file.relative_to(folder).as_posix()}", file.read_bytes())


def _digest_at(uri: str) -> str:
    with suppress(ValueError, AttributeError):
        return str(json.loads(store.find(f"{uri}/{MANIFEST}") or b"{}").get("digest", ""))
    return ""
