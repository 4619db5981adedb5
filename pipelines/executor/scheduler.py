"""Executes a compiled graph on one machine: the same file a cluster is given.

Independent tasks run side by side, tasks that ask for a GPU one per GPU (on a machine without, one at a time, as each
of them uses all cores). A task whose key is known is not run again. No task is started after one has failed.
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

from pipelines.executor import tasks
from pipelines.executor.backends import GRACE, Runner
from pipelines.executor.cache import Cache, Receipt, settled
from pipelines.executor.ledger import Ledger
from pipelines.executor.task_graph import Graph, Task
from pipelines.executor.tasks import Prepared
from pipelines.executor.terminal import error_line
from shared.system.errors import ArtifactError, UserError

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
    """One execution of a graph in a run folder; the ledger's record tells how far it got."""

    def __init__(
        self, graph: Graph, run: Path, parameters: dict[str, Any], runner: Runner, options: Options, ledger: Ledger
    ) -> None:
        """parameters: run-time parameters of the graph, checked."""
        self.graph, self.run_folder, self.parameters = graph, run, parameters
        self.runner, self.options, self.ledger = runner, options, ledger
        self.versions: dict[str, str] = {}
        self.done: dict[str, Receipt] = {}
        self.left_out: set[str] = set()
        self.ready: dict[str, Prepared] = {}
        self.running: dict[str, Running] = {}
        self.again = graph.downstream(options.from_task) if options.from_task else set()
        self.slots = set(range(max(1, options.gpus)))
        weight = {name: len(graph.downstream(name)) for name in graph.tasks}
        self.order = sorted(graph.tasks, key=lambda name: -weight[name])  # what most others wait for comes first

    def run(self) -> None:
        """Execute. Raises TaskFailed, or KeyboardInterrupt on Ctrl-C and SIGTERM, when all processes have ended."""
        started, record = time.monotonic(), self.ledger.record
        self.ledger.begin(self.graph)
        try:
            with _sigterm_as_ctrl_c():
                self.versions = self.runner.versions()
                self.runner.clean()
                while len(self.done) + len(self.left_out) < len(self.graph.tasks):
                    self._look_up()
                    self._start()
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
        if not tasks.wanted(task, self.parameters, self.done, self.left_out):
            self.left_out.add(name)
            self.ledger.left_out(name)
            return True
        if task.import_uri is not None:
            self._finish(name, None, tasks.imported(task, self.run_folder, self.parameters, self.done), "computed")
            return True
        ready = tasks.prepare(task, self.run_folder, self.parameters, self.done, self.versions)
        self.ledger.prepared(ready)
        receipt, origin = (None, "") if name in self.again else self._find(ready)
        if receipt is None:
            self.ready[name] = ready
            return False
        self._finish(name, ready, receipt, origin)
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
            self.ledger.say(ready.task.name, f"not taken as finished: {error}")
        except OSError as error:
            self.ledger.say(ready.task.name, f"the cache cannot be read: {error}")

    def _finish(self, name: str, ready: Prepared | None, receipt: Receipt, origin: str) -> None:
        self.done[name] = receipt
        self.ledger.done(name, ready, receipt, origin)

    # --- running --------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start what is ready, as far as there is room."""
        for name in [name for name in self.order if name in self.ready]:
            gpu = self.graph.tasks[name].gpu
            if len(self.running) < self.options.jobs and (self.slots or not gpu):
                ready = self.ready.pop(name)
                with self._failing(name):
                    shutil.rmtree(ready.folder, ignore_errors=True)  # what other settings or a crash left there
                    (ready.folder / "values").mkdir(parents=True)
                    self._launch(ready)

    def _launch(self, ready: Prepared) -> None:
        name = ready.task.name
        words = tasks.command(ready) + (["--debug"] if self.options.debug and ready.stage else [])
        slot = min(self.slots) if ready.task.gpu else -1
        gpu = slot if slot >= 0 and self.options.gpus else None
        log = (ready.folder / "log.txt").open("ab")
        try:
            process = self.runner.start(ready, words, log, gpu)
        except BaseException:
            log.close()
            raise
        self.slots.discard(slot)
        self.running[name] = Running(ready, process, log, slot)
        self.ledger.started(name)

    def _wait(self) -> None:
        """Until a task ends; then see to all that have."""
        while self.running and all(task.process.poll() is None for task in self.running.values()):
            logs = [(name, task.seconds, task.ready.folder / "log.txt") for name, task in self.running.items()]
            self.ledger.display.tick(logs)
            time.sleep(POLL)
        for name, task in list(self.running.items()):
            if task.process.poll() is not None:
                with self._failing(name):
                    self._release(name)
                    self._ended(name, task)

    def _ended(self, name: str, task: Running) -> None:
        code, ready = task.process.returncode, task.ready
        if code == 0:
            receipt = tasks.collect(ready, task.seconds)
            if receipt.key:
                receipt.save(ready.folder)
                self._keep(ready)
            else:
                self.ledger.say(name, "the code changed while it ran: a later run will not take it as finished")
            self._finish(name, ready, receipt, "computed")
            return
        said = error_line(ready.folder / "log.txt")
        # a stage that says what is wrong would say it again; a killed one may get through
        final = ready.stage is not None and code in (1, 2) and said.startswith("error: ")
        if self.ledger.record.tasks[name].attempts > ready.task.retries or final:
            raise TaskFailed(f"{said.removeprefix('error: ')}\n{name} ended with {_exit(code)}")
        self.ledger.say(name, f"ended with {_exit(code)}; trying again ({said})")
        self._launch(ready)

    def _keep(self, ready: Prepared) -> None:
        if self.options.cache:
            try:
                self.options.cache.keep(ready.key, ready.folder)
            except OSError as error:
                self.ledger.say(ready.task.name, f"not kept in the cache: {error}")

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
            self.ledger.failed(name, str(error).splitlines()[0])
            lines = [str(error) if isinstance(error, TaskFailed) else f"{error}\n{name} failed"]
            log = self.run_folder / name / "log.txt"
            lines += [f"its log: {log}"] if log.is_file() else []
            if waiting := self.ledger.waiting():
                lines.append(f"not started: {', '.join(waiting)}")
            raise TaskFailed("\n".join(lines)) from error

    def _stop_all(self) -> None:
        """End what still runs: a request first, which lets stages clean up, then by force."""
        for name, task in self.running.items():
            self.ledger.record.tasks[name].state = "stopped"
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


def _exit(code: int) -> str:
    """`exit code 1`, `signal SIGTERM`; a container's 137 is 128 + 9."""
    number = -code if code < 0 else code - 128
    if number == signal.SIGKILL:
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
