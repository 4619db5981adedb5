"""The process that reads files for `shared.system.processes.isolation`: it calls functions, each within limits.

Limits are the kernel's, so that they hold within libraries as well. Memory is an address space (RLIMIT_AS): what
allocates more fails, or ends the process. Time is processor time, and ten times as much by the clock; the signal then
ends the process.
"""

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from shared.system.errors import ImageError, UserError

IDLE_SECONDS = 20.0
"""Time after which a process without work ends."""
CLOCK_PER_CPU = 10
"""Seconds by the clock per second of processor time."""


@dataclass(frozen=True)
class Bounds:
    """What a call may use."""

    memory: int
    """Bytes, beside those that the process has."""
    seconds: float
    """Of processor time."""


@dataclass(frozen=True)
class Call:
    """A function of a module and its arguments; a process receives it and answers."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    bounds: Bounds


@dataclass(frozen=True)
class Answer:
    """What a call returned, or the reason why it did not."""

    value: Any = None
    failure: str = ""
    """Reason, for people."""
    is_user_error: bool = False
    """Whether the failure is a UserError that is no ImageError."""


def main() -> None:
    """Serve the socket whose descriptor is the argument, until it closes or nothing comes for a while."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    with contextlib.suppress(OSError):  # if memory runs out, this process ends before its parent
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")
    connection = Connection(int(sys.argv[1]))
    _silence()
    while connection.poll(IDLE_SECONDS):
        try:
            call = connection.recv()
        except EOFError:
            return
        answer = _answer(call)
        try:
            connection.send(answer)
        except OSError:  # the caller has ended
            return
        except Exception:  # of its encoding, which precedes the sending
            connection.send(Answer(failure="damaged, or too large: its contents cannot be passed to the program"))


def _silence() -> None:
    """Send what libraries print about damaged files nowhere: the answer has the reason."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _answer(call: Call) -> Answer:
    try:
        with _bounded(call.bounds):
            return Answer(call.function(*call.arguments))
    except MemoryError:
        return Answer(failure=memory_reason(call.bounds))
    except UserError as error:
        return Answer(failure=str(error), is_user_error=not isinstance(error, ImageError))
    except RecursionError:
        return Answer(failure="damaged: it is nested too deeply")
    except Exception as error:  # parsers raise errors of many types
        return Answer(failure=f"damaged: cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:200]})")


def memory_reason(bounds: Bounds) -> str:
    """Why a call ended that needed more memory than it may."""
    return f"damaged, or too large: reading it takes more than {bounds.memory / 2**30:.1f} GiB of memory"


def time_reason(bounds: Bounds) -> str:
    """Why a call ended that needed more time than it may."""
    return f"damaged, or too large: reading it takes more than {bounds.seconds:.0f} s"


@contextlib.contextmanager
def _bounded(bounds: Bounds) -> Iterator[None]:
    old, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _address_space() + bounds.memory
    if _address_space():
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    signal.setitimer(signal.ITIMER_PROF, bounds.seconds)
    signal.setitimer(signal.ITIMER_REAL, CLOCK_PER_CPU * bounds.seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (old, hard))


def _address_space() -> int:
    """Bytes of this process's address space; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except OSError:
        return 0
