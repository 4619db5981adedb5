"""Find the models that a user means: a model, or a finished run that made some; as a folder or an s3:// uri."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipelines.run_folder.record import RUN_RECORD, RunRecord
from shared.system.errors import UserError

KINDS = ("classifier", "detector", "segmentor")
"""Kinds of models that predict."""
_CONFIG = "config.json"
_EXPORT = "export_model"
_REMEDY = "give the folder or uri of a model, or of a run that made one"


def find_models(locations: Iterable[str]) -> dict[str, str]:
    """Return kind -> location of the models at these locations; of a run, its exported models, else its last ones.

    Raises UserError for a location without a model that predicts, or for two of one kind.
    """
    found: dict[str, str] = {}
    for location in locations:
        for kind, place in _models_at(location.rstrip("/")).items():
            if kind in found:
                raise UserError(f"{location}: a second {kind}, besides {found[kind]}; give one of each kind")
            found[kind] = place
    return found


def _models_at(location: str) -> dict[str, str]:
    if "://" not in location and not Path(location).is_dir():
        problem = "a file" if Path(location).exists() else "no such folder"
        raise UserError(f"{location}: {problem}; {_REMEDY}")
    if (kind := _kind(location)) in KINDS:
        return {kind: location}
    if kind:
        raise UserError(f"{location}: a model of kind {kind}, which predicts nothing; give a {' or '.join(KINDS)}")
    record = _read(location, RUN_RECORD)
    if record is None:
        raise UserError(f"{location}: neither a model nor a run, no {_CONFIG} or {RUN_RECORD} in it; {_REMEDY}")
    if not (found := _models_of_run(location, record)):
        raise UserError(f"{location}: this run has made no {', '.join(KINDS[:-1])} or {KINDS[-1]} yet; {_REMEDY}")
    return found


def _models_of_run(location: str, text: bytes) -> dict[str, str]:
    """Kind -> location of the model that the run exported last, or else made last: a loop ends with its best one."""
    try:
        tasks = RunRecord.model_validate_json(text).tasks.values()
    except (ValidationError, UnicodeDecodeError) as error:
        raise UserError(f"{location}/{RUN_RECORD}: not a run record that this version reads; {_REMEDY}") from error
    found: dict[str, str] = {}
    for task in sorted(tasks, key=lambda task: task.stage == _EXPORT):
        for output in task.outputs.values():
            if (
                task.state == "done"
                and output.kind == "Model"
                and (kind := _kind(f"{location}/{output.path}")) in KINDS
            ):
                found[kind] = f"{location}/{output.path}"
    return found


def _kind(location: str) -> str:
    """Kind of the model at a location; empty where there is none."""
    text = _read(location, _CONFIG)
    try:
        content: Any = json.loads(text) if text else {}
    except ValueError:
        content = {}
    return str(content.get("kind", "")) if isinstance(content, dict) else ""


def _read(location: str, name: str) -> bytes | None:
    """Read a file at a location; None where there is none."""
    if "://" in location:
        from shared import store

        return store.find(f"{location}/{name}")
    path = Path(location) / name
    return path.read_bytes() if path.is_file() else None
