"""Call functions that read untrusted files in processes of their own, within limits of memory and time.

A file that kills its decoder, hangs it or exhausts the memory costs that process and gives a reason; the caller goes on
with the next file. Processes are kept for further calls, and end by themselves when they have no work.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import ParamSpec, TypeVar

from shared.system.devices import library_threads, threads
from shared.system.errors import ImageError, UserError
from shared.system.processes import isolated_process
from shared.system.processes.isolated_process import Answer, Bounds, Call

P = ParamSpec("P")
T = TypeVar("T")
_START_ATTEMPTS = 3


class ProcessEnded(ImageError):
    """The process ended during a call: the file crashed its decoder, or took too much memory or time."""


def isolated(bounds: Bounds, function: Callable[P, T], *args: P.args, **unused: P.kwargs) -> T:
    """Call `function(*args)` in another process. Arguments and the result are plain data of the program's own types.

    Raises ProcessEnded where the process ended, ImageError with the reason for any exception of the function, and
    UserError where the function raised another UserError.
    """
    answer = _POOL.ask(Call(function, args, bounds))
    if answer.failure:
        raise UserError(answer.failure) if answer.is_user_error else ImageError(answer.failure)
    value: T = answer.value
    return value


@contextmanager
def reading_threads() -> Iterator[ThreadPoolExecutor]:
    """Yield threads that call `isolated` side by side. An exception, such as Ctrl-C, ends their processes at once."""
    with ThreadPoolExecutor(threads()) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            _POOL.kill()
            raise


class _Process:
    """One process, with one call at a time."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        path = os.pathsep.join(part or str(Path.cwd()) for part in sys.path)
        environment = {**os.environ, **library_threads(1), "PYTHONPATH": path}
        program = f"from {isolated_process.__name__} import main; main()"
        command = [sys.executable, "-c", program, str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, env=environment, pass_fds=[theirs.fileno()]
            )
        self._connection = Connection(ours.detach())

    def ask(self, call: Call) -> Answer:
        """Send a call and wait for the answer. Raises EOFError or OSError where the process ends instead."""
        self._connection.send(call)
        answer: Answer = self._connection.recv()
        return answer

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def exit_code(self) -> int:
        """Wait for the end, and return the exit code; minus the number of the signal that ended it."""
        self._connection.close()
        return self._process.wait()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()


class _Pool:
    """Processes that are started when they are needed: as many as there are calls at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()

    def ask(self, call: Call) -> Answer:
        """Have a call answered. Raises ProcessEnded."""
        for _ in range(_START_ATTEMPTS):
            process = self._take()
            try:
                answer = process.ask(call)
            except (EOFError, OSError) as error:
                code = self._drop(process)
                if code == 0:  # it ended for lack of work just then
                    continue
                raise ProcessEnded(_reason(code, call.bounds)) from error
            except BaseException:
                process.kill()
                self._drop(process)
                raise
            with self._lock:
                self._busy.discard(process)
                self._idle.append(process)
            return answer
        raise RuntimeError(f"{isolated_process.__name__} ends without an answer")

    def kill(self) -> None:
        """End the processes that are at work."""
        with self._lock:
            for process in self._busy:
                process.kill()

    def _take(self) -> _Process:
        with self._lock:
            while self._idle:
                process = self._idle.pop()
                if not process.has_ended:
                    break
                process.exit_code()
            else:
                process = _Process()
            self._busy.add(process)
            return process

    def _drop(self, process: _Process) -> int:
        with self._lock:
            self._busy.discard(process)
        return process.exit_code()


_POOL = _Pool()


def _reason(code: int, bounds: Bounds) -> str:
    """Why a process ended with this exit code."""
    if code in (-signal.SIGPROF, -signal.SIGALRM):
        return isolated_process.time_reason(bounds)
    if code in (-signal.SIGKILL, -signal.SIGABRT):
        return isolated_process.memory_reason(bounds)
    if code < 0:
        return f"damaged: it crashes its decoder ({signal.Signals(-code).name})"
    return f"damaged: its decoder ends with exit code {code}"
