"""Executes a compiled graph on one machine: the same file a cluster is given.

Independent tasks run side by side, tasks that ask for a GPU one per GPU (on a machine without, one at a time, as each
of them uses all cores). A task whose key is known is not run again. No task is started after one has failed.
"""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn

from pipelines import record, tasks
from pipelines.cache import Cache, Made, Receipt, digest_of, settled
from pipelines.record import RunRecord, TaskRecord
from pipelines.runners import GRACE, Runner
from pipelines.sending import send
from pipelines.taskgraph import Graph, Task, leads
from pipelines.tasks import MISSING, Prepared
from pipelines.terminal import Display, error_line
from shared.errors import ArtifactError, UserError
from shared.rerun import rerun_command

POLL = 0.02
"""s between looks at the running processes."""


class TaskFailed(UserError):
    """A task failed; the message is its own, then where its log is."""


@dataclass
class Options:
    """How to execute."""

    jobs: int = 1
    """Tasks side by side, at most."""
    gpus: int = 0
    """GPUs of this machine."""
    cache: Cache | None = None
    from_task: str = ""
    """This task and all after it are run again, whatever is known."""
    store: str = ""
    """`s3://bucket/prefix` to which every artifact is sent as well."""
    debug: bool = False
    """Have stages show the traceback of an error."""


@dataclass
class Running:
    """A task under way."""

    ready: Prepared
    process: "subprocess.Popen[bytes]"
    log: IO[bytes]
    slot: int
    """Which GPU slot it holds, -1 for none."""
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return time.monotonic() - self.started


class Execution:
    """One execution of a graph in a run folder; `record` tells how far it got."""

    def __init__(
        self,
        graph: Graph,
        run: Path,
        parameters: dict[str, Any],
        runner: Runner,
        options: Options,
        record: RunRecord,
        display: Display,
    ) -> None:
        self.graph, self.run_folder, self.parameters = graph, run, parameters
        self.runner, self.options, self.record, self.display = runner, options, record, display
        self.done: dict[str, Receipt] = {}
        self.left_out: set[str] = set()
        self.ready: dict[str, Prepared] = {}
        self.running: dict[str, Running] = {}
        self.again = graph.downstream(options.from_task) if options.from_task else set()
        self.slots = set(range(max(1, options.gpus)))
        weight = {name: len(graph.downstream(name)) for name in graph.tasks}
        self.order = sorted(graph.tasks, key=lambda name: -weight[name])  # what most others wait for comes first
        for name, task in graph.tasks.items():
            record.tasks[name] = _blank(task)

    def run(self) -> None:
        """Execute. Raises TaskFailed, or KeyboardInterrupt on Ctrl-C and SIGTERM, when all processes have ended."""
        started = time.monotonic()
        self.record.state, self.record.started = "running", time.time()
        try:
            with _sigterm_as_ctrl_c():
                self.versions = self.runner.versions()
                self.runner.clean()
                self._save()
                while len(self.done) + len(self.left_out) < len(self.graph.tasks):
                    self._look_up()
                    self._start()
                    self._wait()
            self.record.state = "done"
        except KeyboardInterrupt:
            self.record.state = "interrupted"
            raise
        except UserError:
            self.record.state = "failed"
            raise
        finally:
            self._stop_all()
            self.record.seconds = time.monotonic() - started
            self.display.clear()
            self._save()

    # --- which tasks need no running ------------------------------------------------------------------------------

    def _look_up(self) -> None:
        """Prepare each task whose predecessors have ended; those found finished may make others ready in turn."""
        found = True
        while found:
            found = False
            for name in self.order:
                task = self.graph.tasks[name]
                ended = self.done.keys() | self.left_out
                if name in ended or name in self.ready or name in self.running or not task.after <= ended:
                    continue
                with self._failing(name):
                    found |= self._settle(name, task)

    def _settle(self, name: str, task: Task) -> bool:
        """Decide about a task whose predecessors have ended; whether it has thereby ended as well."""
        if not self._wanted(task):
            self.left_out.add(name)
            self.record.tasks[name].state = "left out"
            self.display.line(f"{name}  left out: its condition is false")
            return True
        if task.import_uri is not None:
            self._finish(name, None, self._import(task), "computed")
            return True
        ready = tasks.prepare(task, self.run_folder, self.parameters, self.done, self.versions)
        self._note(ready)
        receipt, origin = (None, "") if name in self.again else self._find(ready)
        if receipt is None:
            self.ready[name] = ready
            return False
        self._finish(name, ready, receipt, origin)
        return True

    def _wanted(self, task: Task) -> bool:
        sources = [*task.parameters.values(), *task.artifacts.values()]
        if any(output.task in self.left_out for source in sources for output in leads(source)):
            return False
        for condition in task.conditions:
            if any(output.task in self.left_out for output in leads(condition.source)):
                return False
            value = tasks.resolve(condition.source, self.parameters, self.done)
            if (value == condition.value) != condition.equal:
                return False
        return True

    def _find(self, ready: Prepared) -> tuple[Receipt | None, str]:
        """The finished task in the run folder or the cache. Damage is reported, and the task runs again."""
        with self._damage(ready):
            if receipt := settled(ready.folder, ready.key):
                return receipt, "run folder"
        if self.options.cache:
            with self._damage(ready):
                if receipt := self.options.cache.restore(ready.key, ready.folder):
                    return receipt, "cache"
        return None, ""

    @contextmanager
    def _damage(self, ready: Prepared) -> Iterator[None]:
        try:
            yield
        except ArtifactError as error:
            self.display.line(f"{ready.task.name}  not taken as finished: {error}")
        except OSError as error:
            self.display.line(f"{ready.task.name}  the cache cannot be read: {error}")

    def _import(self, task: Task) -> Receipt:
        """Bring what an importer names: an artifact at a path, or from S3 into the run folder."""
        uri = tasks.resolve(task.import_uri, self.parameters, self.done) if task.import_uri else MISSING
        path = Path(str(uri)).absolute()
        if "://" in str(uri):
            from shared import store

            path = self.run_folder / task.name / "artifact"
            store.fetch(str(uri), path)
        title = next(iter(task.outputs.values())).get("schemaTitle", "")
        made = Made(path=str(path), kind=title, schema_title=title, digest=digest_of(path))
        return Receipt(key="", seconds=0.0, outputs=dict.fromkeys(task.outputs, made))

    # --- running --------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start what is ready, as far as there is room."""
        for name in [name for name in self.order if name in self.ready]:
            gpu = self.graph.tasks[name].gpu
            if len(self.running) >= self.options.jobs or (gpu and not self.slots):
                continue
            ready = self.ready.pop(name)
            with self._failing(name):
                _emptied(ready.folder)
                self._launch(ready, self.slots.pop() if gpu else -1)

    def _launch(self, ready: Prepared, slot: int) -> None:
        name = ready.task.name
        entry = self.record.tasks[name]
        log = (ready.folder / "log.txt").open("ab")
        gpu = slot if slot >= 0 and self.options.gpus else None
        words = tasks.command(ready) + (["--debug"] if self.options.debug and ready.stage else [])
        process = self.runner.start(ready, words, log, gpu)
        self.running[name] = Running(ready, process, log, slot)
        entry.state, entry.started, entry.attempts = "running", time.time(), entry.attempts + 1
        self.display.line(f"{name}  started{f', attempt {entry.attempts}' if entry.attempts > 1 else ''}")
        self._save()

    def _wait(self) -> None:
        """Until a task ends; then see to all that have."""
        while self.running and all(task.process.poll() is None for task in self.running.values()):
            logs = ((name, task.seconds, task.ready.folder / "log.txt") for name, task in self.running.items())
            self.display.tick(logs)
            time.sleep(POLL)
        for name, task in list(self.running.items()):
            if task.process.poll() is not None:
                with self._failing(name):
                    self._ended(name, task)

    def _ended(self, name: str, task: Running) -> None:
        self._release(name)
        code = task.process.returncode
        if code == 0:
            receipt = tasks.collect(task.ready, task.seconds)
            receipt.save(task.ready.folder)
            self._finish(name, task.ready, receipt, "computed")
            self._keep(task.ready)
            return
        entry = self.record.tasks[name]
        entry.seconds = task.seconds
        said = error_line(task.ready.folder / "log.txt")
        final = bool(task.ready.task.stage) and code in (1, 2) and said.startswith("error: ")
        if entry.attempts <= task.ready.task.retries and not final:
            self.display.line(f"{name}  ended with {_exit(code)}; trying again ({said})")
            self._launch(task.ready, self.slots.pop() if task.slot >= 0 else -1)
            return
        raise TaskFailed(f"{said.removeprefix('error: ')}\n{name} ended with {_exit(code)}")

    def _release(self, name: str) -> None:
        task = self.running.pop(name)
        task.log.close()
        if task.slot >= 0:
            self.slots.add(task.slot)

    @contextmanager
    def _failing(self, name: str) -> Iterator[None]:
        """Turn an error on the way of a task into that task's failure."""
        try:
            yield
        except (UserError, OSError) as error:
            entry = self.record.tasks[name]
            entry.state, entry.error = "failed", str(error).splitlines()[0]
            log = self.run_folder / name / "log.txt"
            where = f"\nits log: {log}" if log.is_file() else ""
            trouble = error if isinstance(error, TaskFailed) else f"{error}\n{name} failed"
            raise TaskFailed(f"{trouble}{where}{self._not_started()}") from error

    def _not_started(self) -> str:
        waiting = [n for n in self.graph.tasks if self.record.tasks[n].state == "waiting"]
        return f"\nnot started: {', '.join(waiting)}" if waiting else ""

    def _stop_all(self) -> None:
        """End what still runs: a request first, which lets stages clean up, then by force."""
        for name, task in self.running.items():
            self.record.tasks[name].state = "stopped"
            self.runner.stop(task.ready, task.process)
        end = time.monotonic() + GRACE
        with suppress(KeyboardInterrupt):  # a second Ctrl-C: at once
            while time.monotonic() < end and any(task.process.poll() is None for task in self.running.values()):
                time.sleep(POLL)
        for name, task in list(self.running.items()):
            if task.process.poll() is None:
                self.runner.stop(task.ready, task.process, kill=True)
                task.process.wait()
            self._release(name)

    # --- what is known afterwards ---------------------------------------------------------------------------------

    def _finish(self, name: str, ready: Prepared | None, receipt: Receipt, origin: Any) -> None:
        self.done[name] = receipt
        entry = self.record.tasks[name]
        entry.state, entry.origin, entry.seconds = "done", origin, receipt.seconds
        entry.values, entry.metrics, entry.skipped = receipt.values, receipt.metrics, receipt.skipped
        for key, made in receipt.outputs.items():
            path = made.path if Path(made.path).is_absolute() else f"{name}/{made.path}"
            entry.outputs[key] = record.Output(path=path, kind=made.kind, digest=made.digest)
        took = f"{receipt.seconds:.1f} s"
        note = f"  ({receipt.skipped})" if receipt.skipped else ""
        self.display.line(f"{name}  {f'done in {took}' if origin == 'computed' else f'from the {origin}'}{note}")
        if ready and self.options.store:
            self._send(ready, receipt)
        self._save()

    def _send(self, ready: Prepared, receipt: Receipt) -> None:
        """Copy the artifacts to the store; the command that runs the task again then works from there."""
        send(receipt, ready.folder, f"{self.options.store}/{ready.task.name}")
        entry = self.record.tasks[ready.task.name]
        if ready.stage:
            entry.rerun = self._rerun(ready, self.options.store)
            with (ready.folder / "log.txt").open("a") as log:
                log.write(f"to run this again from {self.options.store}:\n  {entry.rerun}\n")
            self.display.line(f"{ready.task.name}  to run this again:\n  {entry.rerun}")

    def _rerun(self, ready: Prepared, root: str) -> str:
        if ready.stage is None:
            return ""
        locations = {key: f"{root}/{ready.task.name}/{key}" for key in ready.task.outputs}
        for key, value in ready.inputs.items():
            inside = Path(value.uri).is_relative_to(self.run_folder)
            locations[key] = f"{root}/{Path(value.uri).relative_to(self.run_folder)}" if inside else value.uri
        return rerun_command(ready.stage, locations, self.runner.image)

    def _note(self, ready: Prepared) -> None:
        """Enter into the record what is known once the inputs are there."""
        entry = self.record.tasks[ready.task.name]
        entry.key, entry.parameters = ready.key, ready.parameters
        for key, value in ready.inputs.items():
            entry.inputs[key].digest = value.digest
        entry.rerun = self._rerun(ready, str(self.run_folder))

    def _keep(self, ready: Prepared) -> None:
        if self.options.cache:
            try:
                self.options.cache.keep(ready.key, ready.folder)
            except OSError as error:
                self.display.line(f"{ready.task.name}  not kept in the cache: {error}")

    def _save(self) -> None:
        self.record.save(self.run_folder)


def _blank(task: Task) -> TaskRecord:
    sources = ((key, output) for key, source in task.artifacts.items() for output in leads(source))
    inputs = {key: record.Input(task=output.task, output=output.key) for key, output in sources}
    return TaskRecord(stage=task.stage, after=sorted(task.after), inputs=inputs)


def _emptied(folder: Path) -> None:
    """A fresh folder for a task: what an earlier attempt or other settings left there goes."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    (folder / "values").mkdir(parents=True)


def _exit(code: int) -> str:
    """`exit code 1`, `signal SIGKILL (out of memory?)`."""
    number = -code if code < 0 else code - 128
    if code in (137, -9):
        return "signal SIGKILL (out of memory, or killed by somebody)"
    with suppress(ValueError):
        if number > 0:
            return f"signal {signal.Signals(number).name}"
    return f"exit code {code}"


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
