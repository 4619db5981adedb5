"""Keeps the record of a run: every change of a task's state goes to `run.json` and, as a line, to the person."""

import time
from collections.abc import Callable
from pathlib import Path

from pipelines.executor.cache import Receipt
from pipelines.executor.store_copy import send, send_record
from pipelines.executor.task_graph import Graph, Task, leads
from pipelines.executor.tasks import Prepared
from pipelines.executor.terminal import Display
from pipelines.run_folder import record
from pipelines.run_folder.record import RunRecord, TaskRecord
from shared.stage.rerun import rerun_command


class Ledger:
    """The record, its folder, and the display."""

    def __init__(
        self, record: RunRecord, run: Path, display: Display, store: str, image: Callable[[Task], str]
    ) -> None:
        """store: uri below which outputs are sent too, empty: nowhere; image: of a task, for its command."""
        self.record, self.run, self.display, self.store, self.image = record, run, display, store, image

    def begin(self, graph: Graph) -> None:
        """Enter every task of the graph, waiting."""
        self.record.state, self.record.started = "running", time.time()
        self.record.tasks = {name: _blank(task) for name, task in graph.tasks.items()}
        self.save()
        if self.store:
            send_record(self.run, self.store)

    def prepared(self, ready: Prepared) -> None:
        """The inputs of a task are there."""
        entry = self.record.tasks[ready.task.name]
        entry.key, entry.parameters = ready.key, ready.parameters
        for key, value in ready.inputs.items():
            entry.inputs[key].digest = value.digest
        entry.rerun = self._rerun(ready, str(self.run))

    def started(self, name: str) -> None:
        """A task's process was started, for the first time or again."""
        entry = self.record.tasks[name]
        entry.state, entry.started, entry.attempts = "running", time.time(), entry.attempts + 1
        self.say(name, f"started, attempt {entry.attempts}" if entry.attempts > 1 else "started")
        self.save()

    def done(self, name: str, ready: Prepared | None, receipt: Receipt, origin: str) -> None:
        """A task has ended well, now or earlier."""
        entry = self.record.tasks[name]
        entry.state, entry.seconds = "done", receipt.seconds
        entry.origin = origin  # type: ignore[assignment]  # one of the record's words
        entry.values, entry.metrics, entry.skipped = receipt.values, receipt.metrics, receipt.skipped
        for key, made in receipt.outputs.items():
            path = made.path if Path(made.path).is_absolute() else f"{name}/{made.path}"
            entry.outputs[key] = record.Output(path=path, kind=made.kind, digest=made.digest)
        note = f"  ({receipt.skipped})" if receipt.skipped else ""
        self.say(name, (f"done in {receipt.seconds:.1f} s" if origin == "computed" else f"from the {origin}") + note)
        if ready and self.store:
            self._send(ready, receipt)
        self.save()

    def left_out(self, name: str) -> None:
        """A task's condition is false, or a task it needs was left out."""
        self.record.tasks[name].state = "left out"
        self.say(name, "left out: its condition is false")

    def failed(self, name: str, message: str) -> None:
        """A task has failed, and with it the run."""
        entry = self.record.tasks[name]
        entry.state, entry.error = "failed", message
        if entry.started:
            entry.seconds = time.time() - entry.started

    def waiting(self) -> list[str]:
        """Tasks that were never started."""
        return [name for name, entry in self.record.tasks.items() if entry.state == "waiting"]

    def say(self, name: str, text: str) -> None:
        """A line about a task."""
        self.display.line(f"{name}  {text}")

    def save(self) -> None:
        """Write `run.json`."""
        self.record.save(self.run)

    def _send(self, ready: Prepared, receipt: Receipt) -> None:
        """Copy the outputs to the store; the command that runs the task again then works from there."""
        send(receipt, ready.folder, f"{self.store}/{ready.task.name}")
        if ready.stage is None:
            return
        entry = self.record.tasks[ready.task.name]
        entry.rerun = self._rerun(ready, self.store)
        with (ready.folder / "log.txt").open("a") as log:
            log.write(f"to run this again from {self.store}:\n  {entry.rerun}\n")
        self.say(ready.task.name, f"to run this again:\n  {entry.rerun}")

    def _rerun(self, ready: Prepared, root: str) -> str:
        """The command that runs a task again, with artifacts of this run at `root`; empty for what is no stage."""
        if ready.stage is None:
            return ""
        locations = {key: f"{root}/{ready.task.name}/{key}" for key in ready.task.outputs}
        for key, value in ready.inputs.items():
            inside = Path(value.uri).is_relative_to(self.run)
            locations[key] = f"{root}/{Path(value.uri).relative_to(self.run)}" if inside else value.uri
        return rerun_command(ready.stage, locations, self.image(ready.task))


def _blank(task: Task) -> TaskRecord:
    sources = ((key, output) for key, source in task.artifacts.items() for output in leads(source))
    inputs = {key: record.Input(task=output.task, output=output.key) for key, output in sources}
    return TaskRecord(stage=task.stage, after=sorted(task.after), inputs=inputs)
