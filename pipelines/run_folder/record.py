"""`RUN/run.json`: what a run is made of and how far it got. Written whole, by rename, whenever a task changes state."""

import contextlib
import os
import uuid
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.system.errors import UserError

NAME = "run.json"


class Input(BaseModel):
    """One input artifact of a task."""

    model_config = ConfigDict(extra="forbid")
    task: str
    """Task that made it."""
    output: str
    """Which of that task's outputs."""
    digest: str = ""
    """Content digest; empty until the task starts."""


class Output(BaseModel):
    """One output of a task."""

    model_config = ConfigDict(extra="forbid")
    path: str
    """Relative to the run folder."""
    kind: str = ""
    """Artifact type, such as ImageSet; for components that are no stages Kubeflow's, such as system.Dataset."""
    digest: str = ""
    """Content digest; empty for pages and metrics."""


class TaskRecord(BaseModel):
    """One task of the graph."""

    model_config = ConfigDict(extra="forbid")
    stage: str = ""
    """Folder under `components/`; empty for a component that is no stage."""
    state: Literal["waiting", "running", "done", "failed", "stopped", "left out"] = "waiting"
    """stopped: ended because another task failed or the run was interrupted. left out: its condition was false."""
    origin: Literal["", "computed", "cache", "run folder"] = ""
    """Where the outputs of a done task come from; run folder: they stood there from an earlier start."""
    after: list[str] = []
    """Tasks it waits for."""
    started: float = 0.0
    """Unix time in s."""
    seconds: float = 0.0
    """Wall time of computing it, also where this run only took the outputs from a cache."""
    attempts: int = 0
    key: str = ""
    """Cache key: of stage, parameters, input digests and code version."""
    parameters: dict[str, Any] = {}
    inputs: dict[str, Input] = {}
    outputs: dict[str, Output] = {}
    values: dict[str, Any] = {}
    """Output parameters."""
    metrics: dict[str, float] = {}
    skipped: str = ""
    """Why the stage passed through without computing."""
    rerun: str = ""
    """Command that runs it again by hand, outputs beside the present ones."""
    error: str = ""


class RunRecord(BaseModel):
    """The whole run; tasks are in an order in which they could have run."""

    model_config = ConfigDict(extra="forbid")
    schema_version: int = 1
    identity: str = ""
    """Which run this is: the same however often it goes on in its folder."""
    pipeline: str
    runner: str = "process"
    state: Literal["running", "done", "failed", "interrupted"] = "running"
    started: float = 0.0
    """Unix time in s of the latest start."""
    seconds: float = 0.0
    """Wall time of the latest start."""
    command: list[str] = []
    """The command line that started it."""
    parameters: dict[str, Any] = {}
    """Run-time parameters."""
    tasks: dict[str, TaskRecord] = {}
    """Name, such as `em-1/refine-masks`, which is also its folder, -> task. Its log is `log.txt` in there."""

    def save(self, run: Path) -> None:
        """Write `run/run.json` as a whole."""
        temporary = run / f".{NAME}.partial-{os.getpid()}"
        temporary.write_text(self.model_dump_json(indent=1) + "\n")
        temporary.replace(run / NAME)


def load(run: Path) -> RunRecord:
    """Read `run/run.json`. Raises UserError where there is none or it cannot be read."""
    path = run / NAME
    if not path.is_file():
        raise UserError(f"{run}: not a run folder (no {NAME})")
    try:
        return RunRecord.model_validate_json(path.read_text())
    except (ValidationError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a run record this version reads; start a new run folder") from error


def identity(run: Path) -> str:
    """Of the run in that folder; a new one where there is none yet."""
    with contextlib.suppress(UserError):
        if known := load(run).identity:
            return known
    return uuid.uuid4().hex
