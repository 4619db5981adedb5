"""Functions in isolated processes: results, errors of any sort, limits, and what happens at the end."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shared.system.errors import ImageError, UserError
from shared.system.processes import isolation
from shared.system.processes.isolated_process import Bounds
from shared.system.processes.isolation import ProcessEnded, isolated

ROOT = Path(__file__).parents[4]
BOUNDS = Bounds(2**28, 1.0)


def test_the_result_and_the_process_are_those_of_another_process():
    first = isolated(BOUNDS, os.getpid)
    assert first != os.getpid()
    assert isolated(BOUNDS, os.getpid) == first
    assert isolated(BOUNDS, json.loads, '{"a": [1, "\\ud800"]}') == {"a": [1, "\ud800"]}


def test_calls_at_the_same_time_have_a_process_each():
    with ThreadPoolExecutor(3) as pool:
        started = time.monotonic()
        list(pool.map(lambda _: isolated(BOUNDS, time.sleep, 1), range(3)))
        assert len(set(pool.map(lambda _: isolated(BOUNDS, os.getpid), range(9)))) <= 3
    assert time.monotonic() - started < 60


def refuse_image(name: str) -> None:
    raise ImageError(f"{name} is grey")


def refuse_setting(name: str) -> None:
    raise UserError(f"{name} is no setting")


@pytest.mark.parametrize(
    ("function", "argument", "reason"),
    [
        (bytes, 2**31, "damaged, or too large: reading it takes more than 0.2 GiB of memory"),
        (json.loads, "[" * 200_000, "damaged: it is nested too deeply"),
        (json.loads, "{", "damaged: cannot be read (JSONDecodeError: Expecting property name"),
    ],
)
def test_any_exception_is_an_image_error(function, argument, reason):
    before = isolated(BOUNDS, os.getpid)
    with pytest.raises(ImageError) as caught:
        isolated(BOUNDS, function, argument)
    assert str(caught.value).startswith(reason)
    assert type(caught.value) is ImageError
    assert isolated(BOUNDS, os.getpid) == before


@pytest.mark.parametrize(
    ("function", "argument", "reason"),
    [
        (ctypes.string_at, 0, "damaged: it crashes its decoder (SIGSEGV)"),
        (sum, range(10**12), "damaged, or too large: reading it takes more than 1 s"),
        (os._exit, 3, "damaged: its decoder ends with exit code 3"),
        (os.abort, None, "damaged, or too large: reading it takes more than 0.2 GiB of memory"),
    ],
)
def test_the_end_of_the_process_gives_its_reason_and_the_next_call_another_process(function, argument, reason):
    before = isolated(BOUNDS, os.getpid)
    with pytest.raises(ProcessEnded) as caught:
        isolated(BOUNDS, function, *([] if argument is None else [argument]))
    assert str(caught.value) == reason
    assert isolated(BOUNDS, os.getpid) != before


def test_waiting_without_work_ends_by_the_clock():
    with pytest.raises(ProcessEnded, match="more than 0 s"):
        isolated(Bounds(2**28, 0.05), time.sleep, 60)


def test_a_result_that_cannot_be_sent_is_a_reason():
    with pytest.raises(ImageError, match="cannot be passed to the program"):
        isolated(BOUNDS, eval, "lambda: 0")


def test_a_process_that_ended_for_lack_of_work_is_replaced():
    process = isolation._POOL._take()
    isolation._POOL._busy.discard(process)
    isolation._POOL._idle.append(process)
    process._process.terminate()
    process._process.wait()
    assert isolated(BOUNDS, os.getpid) > 0


def test_other_user_errors_keep_their_kind():
    with pytest.raises(UserError, match=r"^x is no setting$") as caught:
        isolated(BOUNDS, refuse_setting, "x")
    assert not isinstance(caught.value, ImageError)
    with pytest.raises(ImageError, match=r"^x is grey$"):
        isolated(BOUNDS, refuse_image, "x")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_caller_and_what_it_started(number):
    """SIGTERM becomes KeyboardInterrupt, as in a stage."""
    code = (
        "import os, signal, sys, time\n"
        "from shared.system.processes.isolation import *\n"
        "signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
        "with reading_threads() as pool:\n"
        "    print(pool.submit(isolated, Bounds(2**28, 300), os.getpid).result(), flush=True)\n"
        "    list(pool.map(lambda _: isolated(Bounds(2**28, 300), sum, range(10**12)), range(9)))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    started = int(process.stdout.readline())
    time.sleep(0.5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode
    assert errors.rstrip().endswith("KeyboardInterrupt")
    deadline = time.monotonic() + 30
    while _is_alive(started):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _is_alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
