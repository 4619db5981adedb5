"""Start a stage: from a command line by hand, or from the executor input that Kubeflow hands a container.

Both ways end in the same place: parameters are checked, inputs are brought here and checked against their manifests,
`run(stage)` computes into folders beside the outputs, and only then are those sealed and moved into place.
"""

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from pydantic import ValidationError

from shared.artifacts.kinds import ImageSet
from shared.artifacts.manifest import Manifest, image_count, is_artifact, read_manifest, seal, verify
from shared.stage.arguments import Task, parse
from shared.stage.declaration import Port, Result, Run, Stage
from shared.stage.delivery import CHECKPOINTS, SCRATCH, Output, check_apart, deliver_all
from shared.stage.error_messages import describe, disk_watched
from shared.stage.rerun import rerun_command
from shared.stage.task_outputs import report_back, small_files, write_beside
from shared.stage.version import code_version, task_key
from shared.system.devices import library_threads, threads
from shared.system.errors import UserError
from shared.system.log import log, set_up_logging
from shared.system.suggestions import did_you_mean
from shared.training import checkpoint_location as checkpoints


def main(stage: type[Stage], argv: list[str], run: Run) -> int:
    """Run `stage` with the arguments of a command line; returns the exit code and prints no traceback by default.

    run: what computes, see `components.registry`.

    0 done, 1 failed, 2 not understood, 130 and 143 interrupted by Ctrl-C or by SIGTERM.
    """
    # Read when PyTorch is imported: threads that wait sleep instead of spinning. Where other processes want the same
    # cores, spinning made training three times slower (measured on two cores).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    debug = "--debug" in argv
    set_up_logging(stage.slug())
    signal.signal(signal.SIGTERM, _terminated)
    code = 2
    try:
        task = parse(stage, argv)
        code = 1
        os.environ.update(library_threads(threads()))
        execute(task, run)
        return 0
    except KeyboardInterrupt as stop:
        code = 143 if "terminated" in stop.args else 130
        message = "interrupted: nothing half-written is left; the same command goes on from the last checkpoint"
    except BrokenPipeError:  # `... --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, ValidationError) and error.title == stage.__name__:
            code = 2
        message = f"error: {describe(error, stage)}"
    with contextlib.suppress(OSError):
        print(message, file=sys.stderr, flush=True)
    return code


def _terminated(*_: object) -> NoReturn:
    raise KeyboardInterrupt("terminated")


# --- doing it -----------------------------------------------------------------------------------------------------


def execute(task: Task, run: Run) -> Result:
    """Check, fetch, compute, seal, deliver. On any failure the outputs are as they were before."""
    stage_type, ports = task.stage, task.stage.ports()
    code = code_version(stage_type)
    with (
        tempfile.TemporaryDirectory(prefix=SCRATCH, dir=_scratch(task)) as temporary,
        contextlib.ExitStack() as stack,
    ):
        _check_locations(task)
        outputs = _outputs(task)
        places = {name: _place(name, ports[name], task, outputs, Path(temporary)) for name in task.locations}
        stage = stage_type.model_validate({**task.parameters, **places})  # before anything is fetched
        _claim_remote(task)
        for output in outputs.values():
            stack.callback(output.close)
            output.open()
        manifests = {
            n: _bring(n, p.kind, task.locations[n], places[n])
            for n, p in ports.items()
            if p.direction == "in" and n in task.locations
        }
        inputs = {name: manifest.digest for name, manifest in manifests.items()}
        log.info("to run this again:\n  %s", rerun_command(stage, task.locations))
        key = task_key(stage_type.slug(), stage.parameter_values(), inputs, code)
        with disk_watched(places, ports), _checkpoints(task, key):
            result = _compute(stage, places, run)
            sealed = _seal_all(stage, places, inputs, result, code)
            counts = {name: count for name in sealed if (count := image_count(places[name])) is not None}
            small = small_files(task, result)
            written = []
            for location in (where for where in small if "://" not in where):
                written.append(write_beside(location, small[location]))
                stack.callback(written[-1][0].unlink, missing_ok=True)
            _send_remote(task, places, list(sealed))
            deliver_all(list(outputs.values()))
        for partial, path in written:
            partial.replace(path)
        report_back(task, result, sealed, counts, small)
    return result


def _scratch(task: Task) -> str:
    """Folder for temporary files: `CYTOLOOM_TMP`, else the system's, else (all read-only) the one the outputs go to."""
    if given := os.environ.get("CYTOLOOM_TMP"):
        return given
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        for output in _outputs(task).values():
            folder = next(parent for parent in (output.folder, *output.folder.parents) if parent.is_dir())
            if os.access(folder, os.W_OK):
                tempfile.tempdir = str(folder)  # for whatever else needs one
                return tempfile.tempdir
    raise UserError("no folder for temporary files can be written: set CYTOLOOM_TMP, or docker run --tmpfs /tmp")


def _check_locations(task: Task) -> None:
    ports = task.stage.ports()
    if unknown := sorted(set(task.locations) - set(ports)):
        near = did_you_mean(unknown[0], ports)
        raise UserError(f"--{unknown[0]}: {task.stage.slug()} has no such input or output{near}")
    if missing := [name for name, port in ports.items() if port.needed and name not in task.locations]:
        raise UserError(f"--{missing[0]}: no path is given for it")
    check_apart(task.locations, {name: port.direction for name, port in ports.items()})


def _send_remote(task: Task, places: dict[str, Path], names: list[str]) -> None:
    for name in names:
        if "://" in task.locations[name]:
            from shared import store

            if not task.overwrite:  # once more: computing took its time
                with _named(name):
                    store.refuse_finished(task.locations[name])
            store.send(places[name], task.locations[name])


def _compute(stage: Stage, places: dict[str, Path], run: Run) -> Result:
    for name, port in stage.ports("out").items():
        if port.is_artifact:
            places[name].mkdir(parents=True, exist_ok=True)
    result = _run(stage, run)
    declared = {name for name, port in stage.ports("out").items() if port.is_value}
    if set(result.values) != declared:
        raise RuntimeError(f"run returned the values {sorted(result.values)}, declared are {sorted(declared)}")
    return result


def _run(stage: Stage, run: Run) -> Result:
    if (most := stage.max_processes()) > 1:
        from shared.stage.worker_processes import run_in_parallel, workers

        if (count := min(most, workers())) > 1:
            return run_in_parallel(run, stage, count)
    return run(stage)


def _outputs(task: Task) -> dict[str, Output]:
    """The output artifacts that go to this file system."""
    return {
        name: Output(name, Path(task.locations[name]), task.overwrite)
        for name, port in task.stage.ports("out").items()
        if port.is_artifact and "://" not in task.locations.get(name, "://")
    }


def _place(name: str, port: Port, task: Task, outputs: dict[str, Output], temporary: Path) -> Path:
    """Where the stage finds an input or writes an output while it runs."""
    location = task.locations[name]
    if name in outputs:
        return outputs[name].partial
    if not port.is_artifact:
        return Path(location)
    if "://" in location or (port.direction == "in" and not is_artifact(Path(location))):
        return temporary / port.direction / name
    return Path(location).absolute()


def _claim_remote(task: Task) -> None:
    """What can be known of outputs in a store before anything is computed: that they may be sent there."""
    for name, port in task.stage.ports("out").items():
        location = task.locations.get(name, "")
        if "://" in location:
            from shared import store

            with _named(name):
                if port.is_artifact:
                    store.claim(location, task.overwrite)
                else:
                    store.probe(location)


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Say of which input or output an error tells."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"--{name}: {error}") from error


def _bring(name: str, kind: type, location: str, place: Path) -> Manifest:
    """Make an input artifact stand at `place`, checked: fetched, or ingested on the fly where it is plain images."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with _named(name):
        if "://" in location:
            from shared import store

            if kind is not ImageSet or store.exists(f"{location.rstrip('/')}/artifact.json"):
                store.fetch(location, place, kind)  # which checks it
                return read_manifest(place)
        elif place == Path(location).absolute():
            return verify(place, kind)
        elif kind is not ImageSet or not Path(location).exists():
            return read_manifest(Path(location), kind)  # says what is wrong
    from shared.readers.ingestion import ingest_plain

    log.info("--%s: %s holds plain images; ingesting them on the fly", name, location)
    ingest_plain(location, place)
    return seal(place, ImageSet, stage="ingest")


@contextlib.contextmanager
def _checkpoints(task: Task, key: str) -> Iterator[None]:
    """Give the stage a folder for its checkpoints; it is removed when the stage succeeded, kept when it did not."""
    root, remote = os.environ.get("CYTOLOOM_CHECKPOINTS", "").rstrip("/"), ""
    if "://" in root:
        folder, remote = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=os.environ.get("CYTOLOOM_TMP"))), f"{root}/{key}"
    elif root:
        folder = Path(root) / key
    else:
        local = [output.folder for output in _outputs(task).values()]
        folder = (local[0] / CHECKPOINTS if local else Path.home() / ".cache/cytoloom/checkpoints") / key
    try:
        checkpoints.use(folder, remote)
    except OSError as error:  # a volume whose owner is another user, say: no reason not to compute
        log.warning(
            "%s: %s; going on without checkpoints (CYTOLOOM_CHECKPOINTS: a folder for them)", folder, error.strerror
        )
        checkpoints.use(None)
    try:
        yield
        checkpoints.remove()
    finally:
        if remote:
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # an empty folder is of no use to anyone
            folder.rmdir()
        if not root:
            with contextlib.suppress(OSError):
                folder.parent.rmdir()


def _seal_all(
    stage: Stage, places: dict[str, Path], inputs: dict[str, str], result: Result, code: str
) -> dict[str, Manifest]:
    """Seal every output artifact where it was written."""
    return {
        name: seal(
            places[name],
            port.kind,
            stage=stage.slug(),
            parameters=stage.parameter_values(),
            code_version=code,
            inputs=inputs,
            skipped=result.skipped,
        )
        for name, port in stage.ports("out").items()
        if port.is_artifact
    }
