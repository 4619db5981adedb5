"""Start a stage, from a command line by hand or from the executor input that Kubeflow passes to a container.

Both ways end in `execute`: parameters are validated, inputs are fetched and verified against their manifests,
`run(stage)` computes into folders beside the outputs, and only then are these sealed and moved into place.
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError

from shared.artifacts.manifest import Manifest, image_count, seal
from shared.stage.arguments import parse
from shared.stage.declaration import Result, Run, Stage
from shared.stage.error_messages import describe, disk_watched
from shared.stage.execution.checkpoint_folder import checkpoint_folder
from shared.stage.execution.inputs import fetch_inputs
from shared.stage.execution.output_folder import OutputFolder, deliver_all
from shared.stage.execution.places import check_locations, is_remote, output_folders, scratch_root, working_places
from shared.stage.execution.remote_outputs import claim_remote, send_remote
from shared.stage.execution.scratch import scratch_folder
from shared.stage.execution.task_outputs import report_back, small_files, write_beside
from shared.stage.invocation import Invocation
from shared.stage.rerun import rerun_command
from shared.stage.version import code_version, task_key
from shared.system.devices import library_threads, threads
from shared.system.log import log, set_up_logging
from shared.system.names import visible_lines
from shared.system.processes.signals import stop_on_signals


def main(stage: type[Stage], argv: list[str], run: Run) -> int:
    """Run `stage` with the arguments of a command line; returns the exit code and prints no traceback by default.

    run: computes the stage, see `components.registry`.

    Exit codes: 0 done, 1 failed, 2 wrong arguments, 130 and 143 interrupted by Ctrl-C or by SIGTERM and SIGHUP.
    """
    # Read when PyTorch is imported: waiting threads sleep instead of spinning. Where other processes want the same
    # cores, spinning made training three times slower (measured on two cores).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    set_up_logging(stage.slug())
    stop_on_signals(_terminated)
    code = 2
    try:
        invocation = parse(stage, argv)
        code = 1
        os.environ.update(library_threads(threads()))
        execute(invocation, run)
        return 0
    except KeyboardInterrupt as stop:
        code = 143 if "terminated" in stop.args else 130
        message = "interrupted: no partial output is left; run the same command to continue from the last checkpoint"
    except BrokenPipeError:  # `... --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if "--debug" in argv:
            traceback.print_exc()
        if isinstance(error, ValidationError) and error.title == stage.__name__:
            code = 2
        message = f"error: {describe(error, stage)}"
    with contextlib.suppress(OSError):
        print(visible_lines(message), file=sys.stderr, flush=True)
    return code


def _terminated(*_: object) -> NoReturn:
    raise KeyboardInterrupt("terminated")


@dataclass
class _Prepared:
    """An invocation whose inputs are at their places and whose outputs may be written."""

    invocation: Invocation
    stage: Stage
    places: dict[str, Path]
    """Port -> path that the stage reads or writes."""
    folders: dict[str, OutputFolder]
    inputs: dict[str, str]
    """Input -> content digest."""
    version: str

    @property
    def key(self) -> str:
        """The task's cache key."""
        return task_key(self.stage.slug(), self.stage.parameter_values(), self.inputs, self.version)


def execute(invocation: Invocation, run: Run) -> Result:
    """Check, fetch, compute, seal, deliver. On any failure the outputs are as they were before."""
    version = code_version(invocation.stage)
    with (
        scratch_folder(scratch_root(invocation)) as temporary,
        contextlib.ExitStack() as stack,
    ):
        prepared = _prepare(invocation, version, temporary, stack)
        log.info("to run this again:\n  %s", rerun_command(prepared.stage, invocation.locations))
        with disk_watched(prepared.places, invocation.stage.ports()), checkpoint_folder(invocation, prepared.key):
            result = _compute(prepared.stage, prepared.places, run)
            sealed = _seal_outputs(prepared, result)
            counts = {name: count for name in sealed if (count := image_count(prepared.places[name])) is not None}
            small = small_files(invocation, result)
            publish_small = _write_small(small, stack)
            send_remote(invocation, prepared.places, sealed)
            deliver_all(prepared.folders.values())
        publish_small()
        report_back(invocation, result, sealed, counts, small)
    return result


def _prepare(invocation: Invocation, version: str, temporary: Path, stack: contextlib.ExitStack) -> _Prepared:
    """Validate everything, open the outputs until the stack is unwound, then fetch the inputs."""
    check_locations(invocation)
    folders = output_folders(invocation)
    places = working_places(invocation, folders, temporary)
    stage = invocation.stage.model_validate({**invocation.parameters, **places})
    claim_remote(invocation)
    for folder in folders.values():
        stack.callback(folder.close)
        folder.open()
    return _Prepared(invocation, stage, places, folders, fetch_inputs(invocation, places), version)


def _compute(stage: Stage, places: Mapping[str, Path], run: Run) -> Result:
    """Run the stage into its output folders, in as many processes as it may use."""
    outputs = stage.ports("out")
    for name, port in outputs.items():
        if port.is_artifact:
            places[name].mkdir(parents=True, exist_ok=True)
    result = _run(stage, run)
    declared = {name for name, port in outputs.items() if port.is_value}
    if set(result.values) != declared:
        raise RuntimeError(f"run returned the values {sorted(result.values)}, declared are {sorted(declared)}")
    return result


def _run(stage: Stage, run: Run) -> Result:
    if (max_processes := stage.max_processes()) > 1:
        from shared.stage.execution.worker_processes import run_in_parallel, worker_count

        if (count := min(max_processes, worker_count())) > 1:
            return run_in_parallel(run, stage, count)
    return run(stage)


def _seal_outputs(prepared: _Prepared, result: Result) -> dict[str, Manifest]:
    """Seal every output artifact where it was written."""
    stage = prepared.stage
    return {
        name: seal(
            prepared.places[name],
            port.kind,
            stage=stage.slug(),
            parameters=stage.parameter_values(),
            code_version=prepared.version,
            inputs=prepared.inputs,
            skipped=result.skipped,
        )
        for name, port in stage.ports("out").items()
        if port.is_artifact
    }


def _write_small(files: Mapping[str, str], stack: contextlib.ExitStack) -> Callable[[], None]:
    """Write the small files of this file system beside their places; returns what moves them there."""
    written = []
    for location, text in files.items():
        if not is_remote(location):
            written.append(write_beside(location, text))
            stack.callback(written[-1][0].unlink, missing_ok=True)

    def publish() -> None:
        for partial, path in written:
            partial.replace(path)

    return publish
