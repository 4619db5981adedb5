"""`RUN/run.json`: the tasks of a run, their state and results. Replaced by rename whenever a task changes state."""

import contextlib
import os
import time
import uuid
from pathlib import Path
from typing import Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from shared.system.errors import UserError

RUN_RECORD = "run.json"


class InputRecord(BaseModel):
    """One input artifact of a task."""

    model_config = ConfigDict(extra="forbid")
    task: str
    """Task that made it."""
    output: str
    """Output of that task."""
    digest: str = ""
    """Content digest; empty until the task starts."""


class OutputRecord(BaseModel):
    """One output of a task."""

    model_config = ConfigDict(extra="forbid")
    path: str
    """Relative to the run folder."""
    kind: str = ""
    """Artifact kind, such as ImageSet; of components that are not stages Kubeflow's type, such as system.Dataset."""
    digest: str = ""
    """Content digest of an artifact, sha256 of a page and the like."""

    @property
    def is_artifact(self) -> bool:
        """Whether it is an artifact, as against a page or metrics that describe the task."""
        return self.kind not in ("system.HTML", "system.Metrics", "system.ClassificationMetrics")


class TaskRecord(BaseModel):
    """One task of the graph."""

    model_config = ConfigDict(extra="forbid")
    stage: str = ""
    """Folder under `components/`; empty for a component that is not a stage."""
    state: Literal["waiting", "running", "done", "failed", "stopped", "omitted"] = "waiting"
    """stopped: another task failed or the run was interrupted. omitted: its condition was false."""
    origin: Literal["", "computed", "cache", "run folder"] = ""
    """Where the outputs of a finished task come from. run folder: from an earlier start of the same run."""
    after: list[str] = []
    """Tasks it waits for."""
    started: float = 0.0
    """Unix time in s."""
    seconds: float = 0.0
    """Wall time of the computation, also where this run took the outputs from a cache."""
    attempts: int = 0
    key: str = ""
    """Cache key: hash of stage, parameters, input digests and code version."""
    parameters: dict[str, Any] = {}
    fed: list[str] = []
    """Names of the parameters whose values are outputs of other tasks, not settings."""
    inputs: dict[str, InputRecord] = {}
    outputs: dict[str, OutputRecord] = {}
    values: dict[str, Any] = {}
    """Output parameters."""
    metrics: dict[str, float] = {}
    skipped: str = ""
    """Why the stage passed through without computing; empty where it computed."""
    remark: str = ""
    """One or two sentences on the outcome, from `Result.remark`."""
    rerun: str = ""
    """Command that repeats the task by hand and writes its outputs beside the present ones."""
    error: str = ""


class RunRecord(BaseModel):
    """The whole run. Each task comes after the tasks it waits for."""

    model_config = ConfigDict(extra="forbid")
    schema_version: int = 1
    identity: str = ""
    """Identifies the run; it stays the same when the run is resumed in its folder."""
    pipeline: str
    backend: str = Field("process", validation_alias=AliasChoices("backend", "runner"))  # the latter in old records
    state: Literal["running", "done", "failed", "interrupted"] = "running"
    started: float = 0.0
    """Unix time in s of the latest start."""
    seconds: float = 0.0
    """Wall time of the latest start."""
    command: list[str] = []
    """Command line of the latest start."""
    parameters: dict[str, Any] = {}
    """Run-time parameters."""
    tasks: dict[str, TaskRecord] = {}
    """Name -> task. The name, such as `em-1/refine-masks`, is also the task's folder, which holds its `log.txt`."""

    def local_start(self) -> str:
        """Format the time of the latest start; empty where it is unknown."""
        try:
            return time.strftime("%Y-%m-%d %H:%M", time.localtime(self.started)) if self.started else ""
        except (OverflowError, ValueError, OSError):  # a record from elsewhere may hold any number
            return ""

    def save(self, run: Path) -> None:
        """Replace `run/run.json`."""
        temporary = run / f".{RUN_RECORD}.partial-{os.getpid()}"
        temporary.write_text(self.model_dump_json(indent=1) + "\n")
        temporary.replace(run / RUN_RECORD)


def load(run: Path) -> RunRecord:
    """Read `run/run.json`. Raises UserError where it is missing or cannot be read."""
    path = run / RUN_RECORD
    if not path.is_file():
        raise UserError(f"{run}: not a run folder, {RUN_RECORD} is missing; give a folder that `cytoloom run` wrote")
    try:
        return RunRecord.model_validate_json(path.read_text())
    except (ValidationError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a run record that this version reads; start a new run folder") from error


def identity(run: Path) -> str:
    """Return the identity of the run in a folder, or a new one where there is no run yet."""
    with contextlib.suppress(UserError):
        if known := load(run).identity:
            return known
    return uuid.uuid4().hex
