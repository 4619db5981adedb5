"""Copy the outputs of a run to S3, at `PREFIX/<task>/<output>` as in the run folder, with its `run.json` and page.

The `run.json` at a prefix identifies the run that owns it: the run itself may continue there, another may not.
"""

import json
from contextlib import suppress
from pathlib import Path

from pipelines.executor.cache import FinishedTask
from pipelines.run_folder import record
from shared import store
from shared.artifacts.manifest import MANIFEST, is_artifact
from shared.store.environment import split_uri
from shared.system.errors import UserError

_PAGE = "report.html"


def check_prefix(uri: str) -> None:
    """Raise UserError if `--store` is not a prefix that a run can own."""
    try:
        _, key = split_uri(uri)
    except UserError as error:
        raise UserError(f"--store {uri}: not an S3 URI; write s3://bucket/prefix") from error
    if not key.strip("/"):
        raise UserError(f"--store {uri}: a whole bucket; give the run a prefix of its own: {uri.rstrip('/')}/NAME")


def refuse_others(uri: str, identity: str) -> None:
    """Raise UserError if there are artifacts below `uri` that do not belong to the run `identity`."""
    found = store.find(f"{uri}/{record.RUN_RECORD}")
    if found is None:
        artifacts = [name for name, _, _ in store.listing(f"{uri}/") if name.rpartition("/")[2] == MANIFEST]
        owner = f"an artifact ({artifacts[0]}) of unknown origin" if artifacts else ""
    else:
        owner = "" if _identity(found) == identity else "another run"
    if owner:
        raise UserError(f"--store {uri}: holds {owner}; give another prefix, or --overwrite")


def _identity(text: bytes) -> str | None:
    with suppress(ValueError, AttributeError):
        return json.loads(text).get("identity") or None
    return None


def send_record(run: Path, uri: str) -> None:
    """Send `run.json`: from now on the run owns the prefix."""
    store.put(f"{uri}/{record.RUN_RECORD}", (run / record.RUN_RECORD).read_bytes())


def send_conclusion(run: Path, uri: str) -> None:
    """Send the final record and the run's page."""
    send_record(run, uri)
    store.put(f"{uri}/{_PAGE}", (run / _PAGE).read_bytes())


def send_outputs(finished: FinishedTask, folder: Path, uri: str) -> None:
    """Send the outputs of a finished task below `uri`, except for artifacts that are there already."""
    for output in finished.outputs.values():
        path = folder / output.path
        if is_artifact(path):
            if _digest_at(f"{uri}/{output.path}") != output.digest:
                store.send(path, f"{uri}/{output.path}")
            continue
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        for file in files:  # pages, metrics, and the outputs of components that are not stages
            store.put(f"{uri}/{file.relative_to(folder).as_posix()}", file.read_bytes())


def _digest_at(uri: str) -> str:
    with suppress(ValueError, AttributeError):
        return str(json.loads(store.find(f"{uri}/{MANIFEST}") or b"{}").get("digest", ""))
    return ""
