"""Record a run: every change of a task's state goes to `run.json` and is printed as a line."""

import time
from collections.abc import Callable
from pathlib import Path

from pipelines.executor.cache import FinishedTask
from pipelines.executor.store_copy import send_outputs, send_record
from pipelines.executor.tasks import PreparedTask
from pipelines.executor.terminal import Display
from pipelines.ir.task_graph import Graph, Task, task_outputs
from pipelines.run_folder import record
from pipelines.run_folder.record import RunRecord, TaskRecord
from shared.stage.rerun import rerun_command


class Ledger:
    """The record of a run, with the folder that it is saved in and the display."""

    def __init__(
        self, record: RunRecord, run: Path, display: Display, store: str, image: Callable[[Task], str]
    ) -> None:
        """store: URI to copy the outputs to, empty for none; image: of a task, for the command that repeats it."""
        self.record, self.run, self.display, self.store, self.image = record, run, display, store, image

    def begin(self, graph: Graph) -> None:
        """Add every task of the graph, waiting."""
        self.record.state, self.record.started = "running", time.time()
        self.record.tasks = {name: _waiting(task) for name, task in graph.tasks.items()}
        self.save()
        if self.store:
            send_record(self.run, self.store)

    def prepared(self, prepared: PreparedTask) -> None:
        """Record the inputs of a task."""
        entry = self.record.tasks[prepared.task.name]
        entry.key, entry.parameters = prepared.key, prepared.parameters
        for key, artifact in prepared.inputs.items():
            entry.inputs[key].digest = artifact.digest
        entry.rerun = self._rerun(prepared, str(self.run))

    def started(self, name: str) -> None:
        """Record that a task's process was started, for the first time or again."""
        entry = self.record.tasks[name]
        entry.state, entry.started, entry.attempts = "running", time.time(), entry.attempts + 1
        self.print(name, f"started, attempt {entry.attempts}" if entry.attempts > 1 else "started")
        self.save()

    def done(self, name: str, prepared: PreparedTask | None, finished: FinishedTask, origin: str) -> None:
        """Record the results of a task. origin: one of `TaskRecord.origin`."""
        entry = self.record.tasks[name]
        entry.state, entry.seconds = "done", finished.seconds
        entry.origin = origin  # type: ignore[assignment]
        entry.values, entry.metrics = finished.values, finished.metrics
        entry.skipped, entry.remark = finished.skipped, finished.remark
        for key, output in finished.outputs.items():
            path = output.path if Path(output.path).is_absolute() else f"{name}/{output.path}"
            entry.outputs[key] = record.OutputRecord(path=path, kind=output.kind, digest=output.digest)
        note = f"  ({finished.skipped})" if finished.skipped else ""
        self.print(name, (f"done in {finished.seconds:.1f} s" if origin == "computed" else f"from the {origin}") + note)
        if prepared and self.store:
            self._send(prepared, finished)
        self.save()

    def omitted(self, name: str) -> None:
        """Record that a task does not run: its condition is false, or a task that it needs is omitted."""
        self.record.tasks[name].state = "omitted"
        self.print(name, "omitted: its condition is false")

    def failed(self, name: str, message: str) -> None:
        """Record the failure of a task, which ends the run."""
        entry = self.record.tasks[name]
        entry.state, entry.error = "failed", message
        if entry.started:
            entry.seconds = time.time() - entry.started

    def waiting(self) -> list[str]:
        """Names of the tasks that were never started."""
        return [name for name, entry in self.record.tasks.items() if entry.state == "waiting"]

    def print(self, name: str, text: str) -> None:
        """Print a line about a task."""
        self.display.line(f"{name}  {text}")

    def save(self) -> None:
        """Write `run.json`."""
        self.record.save(self.run)

    def _send(self, prepared: PreparedTask, finished: FinishedTask) -> None:
        """Copy the outputs to the store. The command that repeats the task then reads its inputs from there."""
        name = prepared.task.name
        send_outputs(finished, prepared.folder, f"{self.store}/{name}")
        if prepared.stage is None:
            return
        entry = self.record.tasks[name]
        entry.rerun = self._rerun(prepared, self.store)
        with (prepared.folder / "log.txt").open("a") as log:
            log.write(f"to run this again from {self.store}:\n  {entry.rerun}\n")
        self.print(name, f"to run this again:\n  {entry.rerun}")

    def _rerun(self, prepared: PreparedTask, root: str) -> str:
        """The command that repeats a task with this run's artifacts at `root`; empty if the task is not a stage."""
        if prepared.stage is None:
            return ""
        locations = {key: f"{root}/{prepared.task.name}/{key}" for key in prepared.task.outputs}
        for key, artifact in prepared.inputs.items():
            inside = Path(artifact.uri).is_relative_to(self.run)
            locations[key] = f"{root}/{Path(artifact.uri).relative_to(self.run)}" if inside else artifact.uri
        return rerun_command(prepared.stage, locations, self.image(prepared.task))


def _waiting(task: Task) -> TaskRecord:
    sources = ((key, output) for key, source in task.artifacts.items() for output in task_outputs(source))
    inputs = {key: record.InputRecord(task=output.task, output=output.key) for key, output in sources}
    fed = sorted(name for name, source in task.parameters.items() if task_outputs(source))
    return TaskRecord(stage=task.stage, after=sorted(task.after), inputs=inputs, fed=fed)
