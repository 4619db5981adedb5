"""Execute a compiled graph on one machine: the same file that a cluster executes.

Independent tasks run side by side. Tasks that request a GPU run one per GPU; on a machine without a GPU they run one at
a time, as each of them uses all cores. A task whose results are known is not run again. No task is started after one
has failed.
"""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn

from pipelines.executor import container_input, results, tasks
from pipelines.executor.backends import Backend
from pipelines.executor.cache import Cache, FinishedTask, read_finished
from pipelines.executor.ledger import Ledger
from pipelines.executor.tasks import PreparedTask
from pipelines.executor.terminal import error_line
from pipelines.ir.task_graph import Graph, Task
from shared.system.errors import ArtifactError, UserError
from shared.system.processes.signals import interrupting

_POLL = 0.02
"""s between two checks of the running processes."""
_GRACE = 10.0
"""s between asking a task to end and killing it."""


class TaskFailed(UserError):
    """A task failed. The message is the task's own, followed by the path of its log."""


@dataclass
class Options:
    """How to execute."""

    jobs: int = 1
    """Maximum number of tasks side by side."""
    gpus: int = 0
    """GPUs of this machine."""
    cache: Cache | None = None
    from_task: str = ""
    """Run this task and all tasks after it again, even if their results are known."""
    debug: bool = False
    """Let stages show the traceback of an error."""


@dataclass
class RunningTask:
    """A task whose process was started."""

    prepared: PreparedTask
    process: "subprocess.Popen[bytes]"
    log: IO[bytes]
    device: int | None
    """Number of the device that it occupies; None if it requested no GPU."""
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return time.monotonic() - self.started


class Execution:
    """One execution of a graph in a run folder. The ledger's record holds its progress."""

    def __init__(
        self, graph: Graph, run: Path, parameters: dict[str, Any], backend: Backend, options: Options, ledger: Ledger
    ) -> None:
        """parameters: run-time parameters of the graph, checked."""
        self.graph, self.run_folder, self.parameters = graph, run, parameters
        self.backend, self.options, self.ledger = backend, options, ledger
        self.versions: dict[str, str] = {}
        self.done: dict[str, FinishedTask] = {}
        self.omitted: set[str] = set()
        self.prepared: dict[str, PreparedTask] = {}
        self.running: dict[str, RunningTask] = {}
        self.forced = graph.downstream(options.from_task) if options.from_task else set()
        self.free_devices = set(range(max(1, options.gpus)))  # without a GPU, the processor is the one device
        weight = {name: len(graph.downstream(name)) for name in graph.tasks}
        self.order = sorted(graph.tasks, key=lambda name: -weight[name])  # first the task that most others wait for

    def run(self) -> None:
        """Execute. Raises TaskFailed, or KeyboardInterrupt on Ctrl-C, SIGTERM and SIGHUP, when all have ended."""
        started, record = time.monotonic(), self.ledger.record
        self.ledger.begin(self.graph)
        try:
            with interrupting(_interrupt):
                self.versions = self.backend.versions()
                self.backend.clean()
                while len(self.done) + len(self.omitted) < len(self.graph.tasks):
                    self._prepare_tasks()
                    self._start_tasks()
                    self._wait()
            record.state = "done"
        except KeyboardInterrupt:
            record.state = "interrupted"
            raise
        except Exception:
            record.state = "failed"
            raise
        finally:
            self._stop_all()
            record.seconds = time.monotonic() - started
            self.ledger.display.clear()
            self.ledger.save()

    # --- which tasks need not run ---------------------------------------------------------------------------------

    def _prepare_tasks(self) -> None:
        """Prepare each task whose predecessors have ended. A task with known results may make others ready in turn."""
        progress = True
        while progress:
            progress = False
            for name in self.order:
                task = self.graph.tasks[name]
                ended = self.done.keys() | self.omitted
                if name in ended or name in self.prepared or name in self.running or not task.after <= ended:
                    continue
                with self._failure_of(name):
                    progress |= self._ends_at_once(name, task)

    def _ends_at_once(self, name: str, task: Task) -> bool:
        """Prepare a task, and return whether it ends without being run: omitted, imported or known."""
        if not tasks.should_run(task, self.parameters, self.done, self.omitted):
            self.omitted.add(name)
            self.ledger.omitted(name)
            return True
        if task.import_uri is not None:
            finished = tasks.import_artifact(task, self.run_folder, self.parameters, self.done)
            self._finish(name, None, finished, "computed")
            return True
        prepared = tasks.prepare(task, self.run_folder, self.parameters, self.done, self.versions)
        self.ledger.prepared(prepared)
        known, origin = (None, "") if name in self.forced else self._find_finished(prepared)
        if known is None:
            self.prepared[name] = prepared
            return False
        self._finish(name, prepared, known, origin)
        return True

    def _find_finished(self, prepared: PreparedTask) -> tuple[FinishedTask | None, str]:
        """Look for the finished task in the run folder and in the cache. Reports a corrupted one, which then runs."""
        with self._corruption(prepared):
            if finished := read_finished(prepared.folder, prepared.key):
                return finished, "run folder"
        if self.options.cache:
            with self._corruption(prepared):
                if finished := self.options.cache.restore(prepared.key, prepared.folder):
                    return finished, "cache"
        return None, ""

    @contextmanager
    def _corruption(self, prepared: PreparedTask) -> Iterator[None]:
        try:
            yield
        except ArtifactError as error:
            self.ledger.print(prepared.task.name, f"earlier result not used: {error}")
        except OSError as error:
            self.ledger.print(prepared.task.name, f"the cache cannot be read: {error}")

    def _finish(self, name: str, prepared: PreparedTask | None, finished: FinishedTask, origin: str) -> None:
        self.done[name] = finished
        self.ledger.done(name, prepared, finished, origin)

    # --- processes ------------------------------------------------------------------------------------------------

    def _start_tasks(self) -> None:
        """Start prepared tasks up to the limits of jobs and devices."""
        for name in [name for name in self.order if name in self.prepared]:
            gpu = self.graph.tasks[name].gpu
            if len(self.running) < self.options.jobs and (self.free_devices or not gpu):
                prepared = self.prepared.pop(name)
                with self._failure_of(name):
                    shutil.rmtree(prepared.folder, ignore_errors=True)  # left by other settings or a crash
                    (prepared.folder / "values").mkdir(parents=True)
                    self._launch(prepared)

    def _launch(self, prepared: PreparedTask) -> None:
        words = container_input.command(prepared) + (["--debug"] if self.options.debug and prepared.stage else [])
        device = min(self.free_devices) if prepared.task.gpu else None
        log = (prepared.folder / "log.txt").open("ab")
        try:
            process = self.backend.start(prepared, words, log, device if self.options.gpus else None)
        except BaseException:
            log.close()
            raise
        if device is not None:
            self.free_devices.remove(device)
        self.running[prepared.task.name] = RunningTask(prepared, process, log, device)
        self.ledger.started(prepared.task.name)

    def _wait(self) -> None:
        """Wait until a task ends, then process each one that has ended."""
        while self.running and all(task.process.poll() is None for task in self.running.values()):
            logs = [(name, task.seconds, task.prepared.folder / "log.txt") for name, task in self.running.items()]
            self.ledger.display.tick(logs)
            time.sleep(_POLL)
        for name, task in list(self.running.items()):
            if task.process.poll() is not None:
                with self._failure_of(name):
                    self._release(name)
                    self._ended(name, task)

    def _ended(self, name: str, task: RunningTask) -> None:
        """Keep the results of a task that succeeded; start a failed one again if it has retries left."""
        code, prepared = task.process.returncode, task.prepared
        if code == 0:
            finished = results.collect(prepared, task.seconds)
            self._keep(finished, prepared)
            self._finish(name, prepared, finished, "computed")
            return
        message = error_line(prepared.folder / "log.txt")
        # an error that a stage reports would occur again; a killed process may succeed
        final = prepared.stage is not None and code in (1, 2) and message.startswith("error: ")
        if self.ledger.record.tasks[name].attempts > prepared.task.retries or final:
            raise TaskFailed(f"{message.removeprefix('error: ')}\n{name} ended with {_exit(code)}")
        self.ledger.print(name, f"ended with {_exit(code)}; trying again ({message})")
        self._launch(prepared)

    def _keep(self, finished: FinishedTask, prepared: PreparedTask) -> None:
        """Mark the task's folder as finished and add it to the cache."""
        if not finished.key:
            self.ledger.print(prepared.task.name, "the code changed while it ran; a later run will compute it again")
            return
        finished.save(prepared.folder)
        if self.options.cache:
            try:
                self.options.cache.keep(prepared.key, prepared.folder)
            except OSError as error:
                self.ledger.print(prepared.task.name, f"not kept in the cache: {error}")

    def _release(self, name: str) -> None:
        task = self.running.pop(name)
        task.log.close()
        if task.device is not None:
            self.free_devices.add(task.device)

    @contextmanager
    def _failure_of(self, name: str) -> Iterator[None]:
        """Turn an error raised inside into the failure of a task."""
        try:
            yield
        except (UserError, OSError) as error:
            self.ledger.failed(name, str(error).splitlines()[0])
            lines = [str(error) if isinstance(error, TaskFailed) else f"{error}\n{name} failed"]
            log = self.run_folder / name / "log.txt"
            lines += [f"its log: {log}"] if log.is_file() else []
            if waiting := self.ledger.waiting():
                lines.append(f"not started: {', '.join(waiting)}")
            raise TaskFailed("\n".join(lines)) from error

    def _stop_all(self) -> None:
        """Stop the running tasks: first by a request, on which stages clean up, then by force."""
        for name, task in self.running.items():
            self.ledger.record.tasks[name].state = "stopped"
            self.backend.stop(task.prepared, task.process)
        end = time.monotonic() + _GRACE
        with suppress(KeyboardInterrupt):  # a second Ctrl-C kills at once
            while time.monotonic() < end and any(task.process.poll() is None for task in self.running.values()):
                time.sleep(_POLL)
        for name, task in list(self.running.items()):
            if task.process.poll() is None:
                self.backend.stop(task.prepared, task.process, kill=True)
                task.process.wait()
            self._release(name)


def _exit(code: int) -> str:
    """Describe an exit code: `exit code 1`, `signal SIGTERM`; the 137 of a container is 128 + 9."""
    number = -code if code < 0 else code - 128
    if number == signal.SIGKILL:
        return "signal SIGKILL (out of memory, or killed by a person)"
    with suppress(ValueError):
        if number > 0:
            return f"signal {signal.Signals(number).name}"
    return f"exit code {code}"


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
