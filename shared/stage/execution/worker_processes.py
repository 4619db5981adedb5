"""Run a stage in several processes, one for each GPU, started and watched by torchrun's launcher."""

import contextlib
import logging
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
import torch.distributed as dist

from shared.stage.declaration import Result, Run, Stage
from shared.stage.error_messages import describe
from shared.system.collectives import wait_for_all
from shared.system.devices import THREADS, library_threads, threads
from shared.system.errors import UserError
from shared.system.log import log, set_up_logging
from shared.system.processes.child_processes import dies_with
from shared.training import checkpoint_location

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig

WORKERS = "CYTOLOOM_WORKERS"
COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""Longest wait of one process for another: longer than reading a large set takes."""


def worker_count() -> int:
    """Return the number of training processes: `CYTOLOOM_WORKERS`, else one for each visible GPU, else one.

    Raises UserError where the variable is not a number of processes.
    """
    text = os.environ.get(WORKERS, "")
    if text:
        if not text.isdecimal() or int(text) < 1:
            raise UserError(f"{WORKERS}: {text!r} is not a number of processes; give 1 or more, or unset it")
        return int(text)
    wanted = os.environ.get("CYTOLOOM_DEVICE", "cuda")
    return max(1, torch.cuda.device_count()) if wanted == "cuda" else 1


def run_in_parallel(run: Run, stage: Stage, count: int) -> Result:
    """Run `run(stage)` in `count` processes; returns the first one's result. Raises UserError where one fails."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    for name in ("torch.distributed", "torch.multiprocessing"):  # they report at length what is reported below
        logging.getLogger(name).setLevel(logging.CRITICAL)
    log.info("training in %d processes", count)
    each = max(1, threads() // count)
    environment = {THREADS: str(each), **library_threads(each)}
    with tempfile.TemporaryDirectory(prefix="cytoloom-") as scratch, _environment(**environment), _signal_handlers():
        job = _Job(run, type(stage), stage.model_dump(), checkpoint_location.location(), scratch, os.getpid())
        try:
            results = elastic_launch(_launch_config(count, scratch), _work)(job)
        except SignalException as stop:
            raise KeyboardInterrupt("terminated" if stop.sigval == signal.SIGTERM else "") from stop
        except ChildFailedError as error:
            _raise_failure(error, count, Path(scratch))
    result = results[0]
    assert isinstance(result, Result)
    return result


@dataclass(frozen=True)
class _Job:
    """What a process needs to work on the stage."""

    run: Run
    stage: type[Stage]
    fields: dict[str, Any]
    checkpoints: tuple[Path | None, str]
    """See `shared.training.checkpoint_location.location`."""
    scratch: str
    """Folder for error messages, and for what the processes but the first write."""
    parent: int
    """Process id of the one that started it."""


def _launch_config(count: int, log_folder: str) -> "LaunchConfig":
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    return LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id="cytoloom",
        rdzv_backend="c10d",
        rdzv_endpoint="127.0.0.1:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=log_folder),
        signals_to_handle="SIGTERM,SIGINT",
    )


def _raise_failure(error: "ChildFailedError", count: int, scratch: Path) -> NoReturn:
    """Raise UserError with the message of the process that failed, or with how it ended where it left none."""
    if messages := sorted(scratch.glob("error-*")):
        raise UserError(messages[0].read_text()) from error
    failed = error.get_first_failure()[1]
    raise UserError(
        f"process {failed.local_rank} of {count} ended with code {failed.exitcode}, perhaps for lack of memory; "
        f"lower --batch_size, or set {WORKERS} to fewer processes"
    ) from error


# --- in each process ----------------------------------------------------------------------------------------------


def _work(job: _Job) -> Result | None:
    """Run the stage as one of the processes; returns the result of the first, None of the others."""
    dies_with(job.parent)()
    rank = int(os.environ["RANK"])
    stage = job.stage.model_validate(job.fields)
    if rank:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115, for the life of the process
        stage = _with_void_outputs(stage, Path(job.scratch, f"outputs-{rank}"))
    set_up_logging(stage.slug())
    checkpoint_location.set_location(*job.checkpoints)
    dist.init_process_group(_set_device(), timeout=COLLECTIVE_TIMEOUT)
    try:
        result = job.run(stage)
        wait_for_all()
    except Exception as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        Path(job.scratch, f"error-{rank}").write_text(describe(error, job.stage))
        sys.exit(1)
    dist.destroy_process_group()
    return None if rank else result


def _with_void_outputs(stage: Stage, void: Path) -> Stage:
    """Return the stage with outputs below `void`: only the first process writes the real ones."""
    outputs = {name: void / name for name, port in stage.ports("out").items() if port.is_artifact}
    for folder in outputs.values():
        folder.mkdir(parents=True)
    return stage.model_copy(update=outputs)


def _set_device() -> str:
    """Let this process use its own GPU, where there are any; returns torch's backend for communication."""
    if os.environ.get("CYTOLOOM_DEVICE", "cuda") != "cuda" or not torch.cuda.is_available():
        return "gloo"
    os.environ["CYTOLOOM_DEVICE"] = f"cuda:{os.environ['LOCAL_RANK']}"
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    return "nccl"


@contextlib.contextmanager
def _signal_handlers() -> Iterator[None]:
    """Restore the handlers that the launcher replaces."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set environment variables, and restore them afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
