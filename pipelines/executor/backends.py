"""Start a task's container: as a plain process of this machine, or with Docker.

A backend is anything with `image(task)`, `versions()`, `start(ready, words, log, gpu)`, which returns a
`subprocess.Popen`, and `stop(ready, process)`; `clean()` ends what an earlier, killed executor may have left running.
"""

import hashlib
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

from components.registry import declaration, names
from pipelines.ir.task_graph import Graph, Task
from pipelines.executor.tasks import PreparedTask, externals
from shared.stage.version import ROOT, code_version
from shared.system.child_processes import dies_with
from shared.system.errors import UserError

HANDED_ON = ("CYTOLOOM_", "AWS_")
"""Environment variables with these beginnings reach containers, by name: no value shows in a list of processes."""
OUTSIDE = ("CYTOLOOM_IMAGE", "CYTOLOOM_TARGET", "CYTOLOOM_CACHE", "CYTOLOOM_TMP")
"""Of these, what says something else inside a container."""
GRACE = 10.0
"""s between asking a task to end and killing it."""


class Backend(Protocol):
    """What the executor needs of one."""

    def image(self, task: Task) -> str:
        """Reference of the image that a task runs in; empty where it is none."""

    def versions(self) -> dict[str, str]:
        """Code version of each stage as it will run."""

    def clean(self) -> None:
        """End what an earlier executor of this run folder left running."""

    def start(self, ready: PreparedTask, words: list[str], log: IO[bytes], gpu: int | None) -> "subprocess.Popen[bytes]":
        """Start a task; its output goes to `log`. gpu: number of the GPU it has, None where it has none."""

    def stop(self, ready: PreparedTask, process: "subprocess.Popen[bytes]", kill: bool = False) -> None:
        """Ask the task to end, or make it."""


class ProcessBackend:
    """Tasks as processes with this Python. They end with the executor, however that ends."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def image(self, _: Task) -> str:
        """None."""
        return ""

    def versions(self) -> dict[str, str]:
        """Code version of each stage in this tree."""
        return {name: code_version(declaration(name)) for name in names()}

    def clean(self) -> None:
        """Nothing to do: see `dies_with`."""

    def start(self, ready: PreparedTask, words: list[str], log: IO[bytes], gpu: int | None) -> "subprocess.Popen[bytes]":
        """Start a process in a group of its own, so that Ctrl-C reaches the executor alone."""
        if words[0] in ("python", "python3"):
            words = [sys.executable, *words[1:]]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        env = {
            "CYTOLOOM_CHECKPOINTS": str(self.run / ".checkpoints"),
            **os.environ,
            **ready.task.env,
            "PYTHONPATH": path,
        }
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
            raise UserError(f"{ready.task.name}: {words[0]} cannot be started: {error.strerror}") from error

    def stop(self, ready: PreparedTask, process: "subprocess.Popen[bytes]", kill: bool = False) -> None:
        """SIGTERM, or SIGKILL, to the process and its children."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL if kill else signal.SIGTERM)


def _visible(gpu: int) -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[gpu] if visible else str(gpu)


class DockerBackend:
    """Tasks as containers with host networking, the run folder at the same path inside as outside."""

    def __init__(self, run: Path, graph: Graph, image: str = "") -> None:
        """image: for the stages that it is made for, instead of the images that the graph names."""
        self.run = run
        self.given = image
        self.held: dict[str, str] = {}
        """Code versions of the stages of `given`."""
        self.tasks = [task for task in graph.tasks.values() if task.stage]
        self.label = f"cytoloom.run={hashlib.sha256(str(run).encode()).hexdigest()[:16]}"

    def versions(self) -> dict[str, str]:
        """Code version of each stage inside the images."""
        self.held = _held(self.given) if self.given else {}
        found: dict[str, str] = {}
        for image in sorted({task.image for task in self.tasks if task.stage not in self.held}):
            found |= _held(image)
        return found | self.held

    def image(self, task: Task) -> str:
        """The given image where it is made for the task's stage, else what the graph names."""
        return self.given if task.stage and task.stage in self.held else task.image

    def clean(self) -> None:
        """Remove containers of this run folder: those of an executor that was killed go on without it."""
        left = _docker("ps", "--all", "--quiet", "--filter", f"label={self.label}", what="docker").split()
        if left:
            _docker("rm", "--force", *left, what="docker rm")

    def start(self, ready: PreparedTask, words: list[str], log: IO[bytes], gpu: int | None) -> "subprocess.Popen[bytes]":
        """Start `docker run` as the present user."""
        image = self.image(ready.task)
        env = {"CYTOLOOM_CHECKPOINTS": str(self.run / ".checkpoints"), **os.environ}
        options = ["--rm", "--name", self._name(ready), "--label", self.label, "--network", "host", "--ipc", "host"]
        options += ["--user", f"{os.getuid()}:{os.getgid()}", "--env", f"CYTOLOOM_IMAGE={image}"]
        options += ["--volume", f"{self.run}:{self.run}"]
        for path in self._read_only(ready):
            options += ["--volume", f"{path}:{path}:ro"]
        kept = env["CYTOLOOM_CHECKPOINTS"]
        if "://" not in kept and not Path(kept).is_relative_to(self.run):
            Path(kept).mkdir(parents=True, exist_ok=True)  # docker would make it, as root
            options += ["--volume", f"{kept}:{kept}"]
        for name in sorted(env):
            if name.startswith(HANDED_ON) and name not in OUTSIDE:
                options += ["--env", name]
        options += [f"--env={name}={value}" for name, value in ready.task.env.items()]
        if gpu is not None:
            options += ["--gpus", f"device={_visible(gpu)}"]
        docker = ["docker", "run", *options, image, *words]
        return subprocess.Popen(
            docker, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=env, start_new_session=True
        )

    def stop(self, ready: PreparedTask, process: "subprocess.Popen[bytes]", kill: bool = False) -> None:
        """SIGTERM through `docker kill`, or remove the container by force."""
        words = ["rm", "--force", self._name(ready)] if kill else ["kill", "--signal", "TERM", self._name(ready)]
        with suppress(UserError):  # it may just have ended
            _docker(*words, what="docker")

    def _name(self, ready: PreparedTask) -> str:
        return f"{self.label.replace('=', '-')}-{ready.task.name.replace('/', '.')}"

    def _read_only(self, ready: PreparedTask) -> list[str]:
        paths = {value.uri for value in ready.inputs.values() if not Path(value.uri).is_relative_to(self.run)}
        if ready.stage:
            places = (str(getattr(ready.stage, name)) for name in externals(declaration(ready.task.stage)))
            paths |= {place for place in places if place and "://" not in place}
        return sorted(paths)


def _held(image: str) -> dict[str, str]:
    """Code version of each stage that an image is made for."""
    asked = ("run", "--rm", "--network", "none", image, "--versions")
    return dict(json.loads(_docker(*asked, what=f"{image}: the image cannot be run")))


def _docker(*words: str, what: str) -> str:
    """Output of a docker command. Raises UserError with docker's own words where it fails."""
    try:
        done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UserError("docker: not installed; `--backend process` needs none") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(f"{what}: {lines[-1]}")
    return done.stdout


def gpu_count() -> int:
    """NVIDIA GPUs that this process may use, told without loading torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if os.environ.get("CYTOLOOM_DEVICE") == "cpu":
        return 0
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    except OSError:
        return 0
    present = len(listed.stdout.splitlines()) if listed.returncode == 0 else 0
    return present if visible is None else min(present, len([item for item in visible.split(",") if item.strip()]))
