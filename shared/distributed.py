"""Data-parallel training inside one task: a process for each GPU, started and watched by torchrun's launcher.

Every process runs the whole stage, but of each step's batch it computes its own `part` only. What a loss is made of is
summed over all processes by `total`, and gradients are averaged: loss and weights are those of one process with the
whole batch, up to rounding. The first process's outputs are the stage's; the others write into the void.

In a single process all of this does nothing.
"""

import contextlib
import importlib
import logging
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from shared import checkpoints
from shared.devices import THREADS, library_threads, threads
from shared.errors import UserError
from shared.explain import describe
from shared.log import log, set_up_logging
from shared.orphans import dies_with
from shared.stage import Result, Stage

WORKERS = "CYTOLOOM_WORKERS"
PATIENCE = timedelta(minutes=30)
"""How long one process waits for another: longer than reading a large set takes."""


def workers() -> int:
    """How many processes train: `CYTOLOOM_WORKERS`, else one for each GPU this process may use, else one."""
    text = os.environ.get(WORKERS, "")
    if text:
        if not text.isdecimal() or int(text) < 1:
            raise UserError(f"{WORKERS} is {text!r}: a number of processes is expected")
        return int(text)
    wanted = os.environ.get("CYTOLOOM_DEVICE", "cuda")
    return max(1, torch.cuda.device_count()) if wanted == "cuda" else 1


# --- in a training loop -------------------------------------------------------------------------------------------


def rank() -> int:
    """Number of this process, 0 for the first or only one."""
    return dist.get_rank() if dist.is_initialized() else 0


def part(count: int) -> slice:
    """Which of `count` samples are this process's; all of them where it is the only one."""
    if not dist.is_initialized():
        return slice(0, count)
    size = dist.get_world_size()
    return slice(count * rank() // size, count * (rank() + 1) // size)


def total(x: Tensor) -> Tensor:
    """Sum over all processes, which gradients go through."""
    if not dist.is_initialized():
        return x
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(x)


def mean(x: Tensor) -> Tensor:
    """Mean over the elements of all processes, which gradients go through; a scalar."""
    if not dist.is_initialized():
        return x.mean()
    return total(x.sum()) / total(x.new_tensor(x.numel()))


@torch.no_grad()
def largest(x: Tensor) -> Tensor:
    """The largest over all processes, element by element; no gradient."""
    if dist.is_initialized():
        x = x.clone()
        dist.all_reduce(x, dist.ReduceOp.MAX)
    return x


@torch.no_grad()
def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace every gradient by its mean over all processes, in one message.

    A loss whose parts went through `total` has, in each process, its gradient times the number of processes; the mean
    is the gradient of the whole.
    """
    if not dist.is_initialized():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if dist.is_initialized():
        dist.barrier()


# --- starting the processes ---------------------------------------------------------------------------------------


def run_in_parallel(stage: Stage, count: int) -> Result:
    """`run(stage)` in `count` processes; the first one's result. Raises UserError as one of them did."""
    from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("torch.distributed", "torch.multiprocessing"):  # say what is said below, at length
        logging.getLogger(name).setLevel(logging.CRITICAL)
    log.info("training in %d processes", count)
    each = max(1, threads() // count)
    environment = {THREADS: str(each), **library_threads(each)}
    with tempfile.TemporaryDirectory(prefix="cytoloom-") as temporary, _environment(**environment):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id="cytoloom",
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=temporary),
            signals_to_handle="SIGTERM,SIGINT",
        )
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            results = elastic_launch(config, _work)(
                type(stage), stage.model_dump(), checkpoints.place(), temporary, os.getpid()
            )
        except SignalException as stop:
            raise KeyboardInterrupt("terminated" if stop.sigval == signal.SIGTERM else "") from stop
        except ChildFailedError as error:
            told = sorted(Path(temporary).glob("error-*"))
            if told:
                raise UserError(told[0].read_text()) from error
            failed = error.get_first_failure()[1]
            raise UserError(
                f"process {failed.local_rank} of {count} ended with code {failed.exitcode}: too little memory for "
                f"{count} processes? Lower --batch_size, or set {WORKERS} to fewer"
            ) from error
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
    result = results[0]
    assert isinstance(result, Result)
    return result


def _work(kind: type[Stage], fields: dict[str, Any], place: tuple[Path | None, str], scratch: str, parent: int) -> Any:
    """One process: run the stage; the first one's result, None from the others."""
    dies_with(parent)()
    mine = int(os.environ["RANK"])
    stage = kind.model_validate(fields)
    if mine:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115, for the life of the process
        void = Path(scratch, f"outputs-{mine}")
        outputs = {name: void / name for name, port in stage.ports("out").items() if port.is_artifact}
        for folder in outputs.values():
            folder.mkdir(parents=True)
        stage = stage.model_copy(update=outputs)
    set_up_logging(stage.slug())
    checkpoints.use(*place)
    on_gpu = os.environ.get("CYTOLOOM_DEVICE", "cuda") == "cuda" and torch.cuda.is_available()
    if on_gpu:
        os.environ["CYTOLOOM_DEVICE"] = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    try:
        result = importlib.import_module(f"components.{stage.slug()}.main").run(stage)
        wait_for_all()
    except Exception as error:
        if "--debug" in sys.argv:
            traceback.print_exc()
        Path(scratch, f"error-{mine}").write_text(describe(error, kind))
        sys.exit(1)
    dist.destroy_process_group()
    return None if mine else result


@contextlib.contextmanager
def _environment(**values: str) -> Any:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
