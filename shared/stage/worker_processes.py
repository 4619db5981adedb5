"""Run a stage in several processes, one for each GPU, started and watched by torchrun's launcher."""

import contextlib
import logging
import os
import signal
import sys
import tempfile
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from shared.stage.declaration import Result, Run, Stage
from shared.stage.error_messages import describe
from shared.system.child_processes import dies_with
from shared.system.collectives import wait_for_all
from shared.system.devices import THREADS, library_threads, threads
from shared.system.errors import UserError
from shared.system.log import log, set_up_logging
from shared.training import checkpoint_location as checkpoints

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


def run_in_parallel(run: Run, stage: Stage, count: int) -> Result:
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
                run, type(stage), stage.model_dump(), checkpoints.place(), temporary, os.getpid()
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


def _work(
    run: Run, kind: type[Stage], fields: dict[str, Any], place: tuple[Path | None, str], scratch: str, parent: int
) -> Any:
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
        result = run(stage)
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
