"""One compiled graph, three ways: processes, containers, and kfp's own DockerRunner. The artifacts are the same.

The graph is `full`, on images without classes: its classifier is absent, and its detector learns from pseudo-masks.

Then a task of the run in containers is run again from the very command that the run printed, from S3 to S3.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from small_config import SMALL, SMALL_DETECTOR

from shared import store
from shared.artifacts.manifest import is_artifact, verify
from shared.readers.fingerprint import fingerprint
from shared.system.devices import KERNEL_VARIABLES

ROOT = Path(__file__).parents[1]
CONFIG = {**SMALL, "train_detector": SMALL_DETECTOR["train_detector"]}
STAGES = ("extract-features", "cluster", "refine-masks", "train-segmentor", "select-model", "evaluate")
TASKS = {
    *("ingest", "pretrain", "sample-images", "train-classifier", "train-detector", "infer"),
    *(f"{word}-{kind}" for word in ("evaluate", "export") for kind in ("classifier", "detector", "segmentor")),
    *(f"em-{number}/{stage}" for number in range(2) for stage in STAGES),
}

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, nuclei) -> Path:
    """Four crops of real nuclei, one of them labelled."""
    import stardist
    import tifffile

    folder = tmp_path_factory.mktemp("source")
    mask = tifffile.imread(Path(stardist.__file__).parent / "data/images/mask2d.tif")
    for split in ("train", "test"):
        (folder / split).mkdir()
    for i in range(3):
        tifffile.imwrite(folder / f"train/crop{i}.tif", nuclei[128 * i : 128 * i + 128, :160, 0])
    tifffile.imwrite(folder / "test/crop3.tif", nuclei[384:, :160, 0])
    tifffile.imwrite(folder / "test/crop3_masks.tif", mask[384:, :160])
    return folder


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory, stage_images: dict[str, str]) -> Path:
    """The compiled graph, whose tasks name the images."""
    folder = tmp_path_factory.mktemp("graph")
    (folder / "run.yaml").write_text(json.dumps(CONFIG))
    done = pipelines("compile", "full", "--config", folder / "run.yaml", "-o", folder / "full.yaml")
    assert done.returncode == 0, done.stderr
    compiled = (folder / "full.yaml").read_text()
    assert set(re.findall(r"image: (\S+)", compiled)) == set(stage_images.values())
    return folder / "full.yaml"


def environment(**more: str) -> dict[str, str]:
    """Threads, devices and kernels are part of what makes equal bytes; nothing of an earlier run may serve.

    NumPy uses kernels without AVX-512. On a processor that has it, the bytes differ if a container does not get the
    variable.
    """
    left_out = ("CYTOLOOM_CACHE", "CYTOLOOM_CHECKPOINTS", "CYTOLOOM_IMAGE", *KERNEL_VARIABLES)
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    chosen = {"CYTOLOOM_THREADS": "1", "CYTOLOOM_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    return {**kept, **chosen, "OPENBLAS_CORETYPE": "Haswell", **more}


def pipelines(*words: object, **more: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "pipelines", *map(str, words)],
        cwd=ROOT,
        env=environment(**more),
        capture_output=True,
        text=True,
    )


def digests(folder: Path) -> dict[str, str]:
    """`task/output` -> content digest of every artifact of a run folder, checked."""
    found = sorted(path.parent for path in folder.rglob("artifact.json"))
    named = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    return {path.relative_to(folder).as_posix(): verify(path).digest for path in named}


@pytest.fixture(scope="module")
def by_processes(graph: Path, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("processes") / "run"
    done = pipelines("run", graph, "--source", source, "--out", out, "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def by_containers(graph: Path, source: Path, tmp_path_factory: pytest.TempPathFactory, s3_server) -> tuple[Path, str]:
    """Run folder, and all that the run printed."""
    out = tmp_path_factory.mktemp("containers") / "run"
    where = f"s3://{s3_server.bucket}/three-ways"
    options = ["--no-cache", "--backend", "docker", "--store", where]
    done = pipelines("run", graph, "--source", source, "--out", out, *options, **s3_server.environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return out, done.stdout + done.stderr


def test_processes_make_every_artifact(by_processes: Path) -> None:
    made = digests(by_processes)
    assert {name.rpartition("/")[0] for name in made} == TASKS
    assert json.loads((by_processes / "em-1/evaluate/scores/scores.json").read_text()), "the labelled crop is scored"
    assert verify(by_processes / "train-classifier/classifier").skipped, "no image has a class"
    assert not verify(by_processes / "train-detector/detector").skipped


def test_containers_make_the_same(by_processes: Path, by_containers: tuple[Path, str]) -> None:
    assert digests(by_containers[0]) == digests(by_processes)


KFP = """
import os, sys
import docker
from kfp import components, local

graph, source, root, fingerprint = sys.argv[1:]
mount = docker.types.Mount(source, source, type="bind", read_only=True)
names = ("CYTOLOOM_THREADS", "CYTOLOOM_DEVICE", "CUDA_VISIBLE_DEVICES", "OPENBLAS_CORETYPE")
runner = local.DockerRunner(
    network_mode="host",
    user=f"{os.getuid()}:{os.getgid()}",
    mounts=[mount],
    environment={name: os.environ[name] for name in names},
)
local.init(runner=runner, pipeline_root=root, raise_on_error=True)
components.load_component_from_file(graph)(source=source, fingerprint=fingerprint)
"""


def test_kfps_own_runner_makes_the_same(graph: Path, source: Path, by_processes: Path, tmp_path: Path) -> None:
    """kfp names its folders otherwise, so artifacts are compared by stage, output and digest."""
    script = tmp_path / "kfp_local.py"
    script.write_text(KFP)
    done = subprocess.run(
        [sys.executable, script, graph, source, tmp_path / "root", fingerprint(str(source))],
        cwd=tmp_path,
        env=environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert by_stage(tmp_path / "root") == by_stage(by_processes)


def by_stage(folder: Path) -> list[tuple[str, str, str]]:
    """(stage, output, content digest) of every artifact below `folder`, sorted."""
    return sorted((verify(folder / path).stage, Path(path).name, digest) for path, digest in digests(folder).items())


def printed_command(text: str, stage: str) -> list[str]:
    """The `docker run` line that a task of `stage` logged."""
    lines = [line.strip() for line in text.splitlines()]
    found = [line for line in lines if line.startswith("docker run") and re.search(rf" {stage} --", line)]
    assert found, f"no command of {stage} was printed:\n{text[-3000:]}"
    return shlex.split(found[0])


def test_the_printed_command_runs_again_from_s3_to_s3(
    by_containers: tuple[Path, str], s3: str, s3_server, tmp_path: Path
) -> None:
    command = printed_command(by_containers[1], "cluster")
    assert not [word for word in command if s3_server.secret in word or s3_server.key in word]
    places = [word for word in command if word.startswith("s3://")]
    assert any(place.startswith(f"{s3}/three-ways/") for place in places), command
    assert not [word for word in command if "--volume" in word], "inputs and outputs are in S3, nothing is mounted"
    done = subprocess.run(command, env=environment(**s3_server.environment()), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    output = command[command.index("--clusters") + 1]
    store.fetch(output, tmp_path / "again")
    made = verify(by_containers[0] / "em-0/cluster/clusters").digest
    assert verify(tmp_path / "again").digest == made


def test_a_failing_container_fails_the_run(graph: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/a.tif").write_text("no image at all")
    options = ["--no-cache", "--backend", "docker"]
    done = pipelines("run", graph, "--source", tmp_path / "source", "--out", tmp_path / "run", *options)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if "error" in line.lower()]
    assert "none of 1 images can be used" in errors[0], done.stderr
    assert "a.tif: not a TIF" in done.stderr, "why, too"
    assert "Traceback" not in done.stdout + done.stderr
    assert not is_artifact(tmp_path / "run/ingest/images")
