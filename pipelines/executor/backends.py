"""Start the container of a task: as a process of this machine, or with Docker."""

import csv
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

from components.registry import declaration, names
from pipelines.executor.tasks import PreparedTask
from pipelines.ir.task_graph import Graph, Task
from pipelines.validation import external_parameters
from shared.stage.version import ROOT, code_version
from shared.system.devices import KERNEL_VARIABLES
from shared.system.errors import UserError
from shared.system.processes.child_processes import dies_with

Process = subprocess.Popen[bytes]

_PASSED_ON = ("CYTOLOOM_", "AWS_", *KERNEL_VARIABLES)
"""Beginnings of the environment variables that containers get; by name, so that no list of processes shows a value."""
_HOST_ONLY = ("CYTOLOOM_IMAGE", "CYTOLOOM_TARGET", "CYTOLOOM_CACHE", "CYTOLOOM_TMP")
"""Of these, the ones that mean something else inside a container."""


class Backend(Protocol):
    """A way to run tasks."""

    def image(self, task: Task) -> str:
        """Return the reference of the image that a task runs in; empty if it runs without one."""

    def versions(self) -> dict[str, str]:
        """Return the code version of each stage as it will run."""

    def clean(self) -> None:
        """Stop what an earlier, killed executor of this run folder left running."""

    def start(self, prepared: PreparedTask, words: list[str], log: IO[bytes], gpu: int | None) -> Process:
        """Start a task, with its output going to `log`. gpu: number of its GPU, None for none."""

    def stop(self, prepared: PreparedTask, process: Process, kill: bool = False) -> None:
        """Ask a task to end, or kill it."""


class ProcessBackend:
    """Runs tasks as processes with this Python. They end with the executor, even if it is killed."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def image(self, _: Task) -> str:
        """Return no image."""
        return ""

    def versions(self) -> dict[str, str]:
        """Return the code version of each stage in this tree."""
        return {name: code_version(declaration(name)) for name in names()}

    def clean(self) -> None:
        """Do nothing: `dies_with` ends the processes."""

    def start(self, prepared: PreparedTask, words: list[str], log: IO[bytes], gpu: int | None) -> Process:
        """Start a process in a session of its own, so that Ctrl-C reaches the executor alone."""
        if words[0] in ("python", "python3"):
            words = [sys.executable, *words[1:]]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        own = {**prepared.task.env, "PYTHONPATH": path}
        env = {"CYTOLOOM_CHECKPOINTS": str(self.run / ".checkpoints"), **os.environ, **own}
        if gpu is not None:
            env["CUDA_VISIBLE_DEVICES"] = _visible(gpu)
        try:
            return subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=ROOT,
                start_new_session=True,
                preexec_fn=dies_with(os.getpid()),
            )
        except OSError as error:
            raise UserError(f"{prepared.task.name}: {words[0]} cannot be started: {error.strerror}") from error

    def stop(self, prepared: PreparedTask, process: Process, kill: bool = False) -> None:
        """Send SIGTERM, or SIGKILL, to the process and its children."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL if kill else signal.SIGTERM)


class DockerBackend:
    """Runs tasks as containers without rights, with the run folder at the same path inside as outside.

    They have a network, the host's, only where they work from a store.
    """

    def __init__(self, run: Path, graph: Graph, image: str = "") -> None:
        """image: replaces the graph's images for the stages that it holds."""
        self.run = run
        self.given = image
        self.given_versions: dict[str, str] = {}
        """Code versions of the stages that `given` holds."""
        self.tasks = [task for task in graph.tasks.values() if task.stage]
        self.label = f"cytoloom.run={hashlib.sha256(str(run).encode()).hexdigest()[:16]}"

    def versions(self) -> dict[str, str]:
        """Return the code version of each stage inside the images."""
        self.given_versions = _image_versions(self.given) if self.given else {}
        found: dict[str, str] = {}
        for image in sorted({task.image for task in self.tasks if task.stage not in self.given_versions}):
            found |= _image_versions(image)
        return found | self.given_versions

    def image(self, task: Task) -> str:
        """Return the given image if it holds the task's stage, else the graph's."""
        return self.given if task.stage and task.stage in self.given_versions else task.image

    def clean(self) -> None:
        """Remove the containers of this run folder: they outlive an executor that is killed."""
        left = _docker("ps", "--all", "--quiet", "--filter", f"label={self.label}", what="docker").split()
        if left:
            _docker("rm", "--force", *left, what="docker rm")

    def start(self, prepared: PreparedTask, words: list[str], log: IO[bytes], gpu: int | None) -> Process:
        """Start `docker run` as the present user; for root, as the owner of the run folder."""
        image = self.image(prepared.task)
        env = {"CYTOLOOM_CHECKPOINTS": str(self.run / ".checkpoints"), **os.environ}
        checkpoints = env["CYTOLOOM_CHECKPOINTS"]
        options = ["--rm", "--name", self._name(prepared), "--label", self.label, "--ipc", "host"]
        options += ["--network", "host" if self._needs_network(prepared, checkpoints) else "none"]
        options += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        options += ["--user", self._user(prepared, checkpoints), "--env", f"CYTOLOOM_IMAGE={image}"]
        options += self._mounts(prepared, checkpoints)
        for name in sorted(env):
            if name.startswith(_PASSED_ON) and name not in _HOST_ONLY:
                options += ["--env", name]
        options += [f"--env={name}={value}" for name, value in prepared.task.env.items()]
        if gpu is not None:
            options += ["--gpus", f"device={_visible(gpu)}"]
        docker = ["docker", "run", *options, image, *words]
        return subprocess.Popen(
            docker, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=env, start_new_session=True
        )

    def stop(self, prepared: PreparedTask, process: Process, kill: bool = False) -> None:
        """Send SIGTERM through `docker kill`, or remove the container by force."""
        name = self._name(prepared)
        words = ["rm", "--force", name] if kill else ["kill", "--signal", "TERM", name]
        with suppress(UserError):  # it may just have ended
            _docker(*words, what="docker")

    def _name(self, prepared: PreparedTask) -> str:
        return f"{self.label.replace('=', '-')}-{prepared.task.name.replace('/', '.')}"

    def _user(self, prepared: PreparedTask, checkpoints: str) -> str:
        """UID:GID of the container. Where root runs it for another user, what the task writes to is given to them."""
        owner = self.run.stat()
        if os.getuid() != 0 or owner.st_uid == 0:
            return f"{os.getuid()}:{os.getgid()}"
        folders = [prepared.folder, *prepared.folder.rglob("*")]
        if _is_local(checkpoints) and Path(checkpoints).is_relative_to(self.run):
            Path(checkpoints).mkdir(parents=True, exist_ok=True)
            folders += [Path(checkpoints), *Path(checkpoints).rglob("*")]
        for path in folders:
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
        return f"{owner.st_uid}:{owner.st_gid}"

    def _needs_network(self, prepared: PreparedTask, checkpoints: str) -> bool:
        """Whether the task reads from a store or writes to one."""
        given = [one.uri for one in prepared.inputs.values()] + [str(one) for one in prepared.parameters.values()]
        return not all(map(_is_local, [*given, checkpoints]))

    def _mounts(self, prepared: PreparedTask, checkpoints: str) -> list[str]:
        """Options that mount the run folder, the checkpoints, and read-only what the task reads from elsewhere."""
        options = _mount(str(self.run))
        for path in self._external_paths(prepared):
            options += _mount(path, read_only=True)
        if _is_local(checkpoints) and not Path(checkpoints).is_relative_to(self.run):
            Path(checkpoints).mkdir(parents=True, exist_ok=True)  # docker refuses to mount what is not there
            options += _mount(checkpoints)
        return options

    def _external_paths(self, prepared: PreparedTask) -> list[str]:
        """Paths outside the run folder that the task reads."""
        paths = {given.uri for given in prepared.inputs.values() if not Path(given.uri).is_relative_to(self.run)}
        if prepared.stage:
            found = (str(getattr(prepared.stage, name)) for name in external_parameters(type(prepared.stage)))
            paths |= {path for path in found if path and _is_local(path)}
        return sorted(paths)


def _is_local(location: str) -> bool:
    return "://" not in location


def _mount(path: str, *, read_only: bool = False) -> list[str]:
    """Options of `docker run` that mount a path at the same path; it may contain a colon, a comma or quotes."""
    fields = ["type=bind", f"source={path}", f"target={path}", *(["readonly"] if read_only else [])]
    row = io.StringIO()
    csv.writer(row, lineterminator="").writerow(fields)
    return ["--mount", row.getvalue()]


def _image_versions(image: str) -> dict[str, str]:
    """Code version of each stage that an image holds."""
    words = ("run", "--rm", "--network", "none", "--cap-drop", "ALL", image, "--versions")
    return dict(json.loads(_docker(*words, what=f"{image}: the image cannot be run")))


def _docker(*words: str, what: str) -> str:
    """Run a docker command and return its output. Raises UserError with docker's own message if it fails."""
    try:
        done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UserError("--backend docker: docker is not installed; install it, or use --backend process") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(f"{what}: {lines[-1]}")
    return done.stdout


def _visible(gpu: int) -> str:
    """The device that CUDA_VISIBLE_DEVICES lists at this position."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[gpu] if visible else str(gpu)


def gpu_count() -> int:
    """Count the NVIDIA GPUs that this process may use, without loading torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if os.environ.get("CYTOLOOM_DEVICE") == "cpu":
        return 0
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    except OSError:
        return 0
    present = len(listed.stdout.splitlines()) if listed.returncode == 0 else 0
    return present if visible is None else min(present, len([item for item in visible.split(",") if item.strip()]))
