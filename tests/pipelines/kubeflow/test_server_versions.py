"""Compiled graphs are pipelines to the oldest server that `submit` accepts, and to the newest release.

A server refuses a run with a field that its version does not have. Its messages are those of the Python packages
kfp-pipeline-spec and kfp-kubernetes of the same version, which are downloaded once, into `build`.
"""

import contextlib
import doctest
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import graphs_for_tests as graphs
import pytest
import yaml
from real_labels import ROOT

from pipelines import config
from pipelines.graphs import GRAPHS
from pipelines.kubeflow import server_version
from pipelines.kubeflow.resources import load_profile

OLDEST = ".".join(map(str, server_version.OLDEST))
NEWEST = "2.17.3"
"""Newest release when this was last looked at."""
PROFILE = """
secret: lab-s3
cache: lab-cache
checkpoints: lab-checkpoints
all:
  gpu_type: nvidia.com/gpu
  node_selector: {pool: gpu}
  tolerations: [{key: nvidia.com/gpu}]
  labels: {kueue.x-k8s.io/queue-name: lab}
  storage: 50Gi
  storage_class: fast
"""
"""Every setting that a server of any version takes."""


def messages(version: str) -> Path:
    """Return a folder with the unpacked packages of a version."""
    target = ROOT / "build" / "kfp-messages" / version
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        names = [f"{name}=={version}" for name in ("kfp-pipeline-spec", "kfp-kubernetes")]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, *names]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(names)} cannot be downloaded:\n{done.stderr}"
        unpacked = Path(folder) / "unpacked"
        for wheel in Path(folder).glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(unpacked)
        with contextlib.suppress(OSError):  # another process was faster
            unpacked.rename(target)
    assert target.is_dir()
    return target


def parsed(version: str, *files: Path) -> subprocess.CompletedProcess[str]:
    script = ROOT / "tests" / "helpers" / "parse_as_server.py"
    return subprocess.run([sys.executable, script, messages(version), *files], capture_output=True, text=True)


def compiled_for(text: str, folder: Path, name: str) -> Path:
    """Compile a graph for the cluster of a profile."""
    (folder / "profile.yaml").write_text(text)
    settings = config.load_config(settings=["rounds=2"], profile=load_profile(folder / "profile.yaml"))
    return graphs.compile_named(settings, folder / f"{name}.yaml", name)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> list[Path]:
    """Return every graph, compiled for a cluster with all that a profile can name."""
    return [compiled_for(PROFILE, tmp_path_factory.mktemp("compiled"), name) for name in GRAPHS]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_a_server_knows_every_field_of_every_graph(version, compiled):
    done = parsed(version, *compiled)
    assert done.returncode == 0, done.stderr


def test_the_user_of_a_task_is_declared_to_a_server_that_knows_it(tmp_path):
    for text in ("kubeflow: 2.16.0", "{kubeflow: 2.17.0, run_as_user: 1234}"):
        path = compiled_for(text, tmp_path, "infer")
        assert parsed(NEWEST, path).returncode == 0
        assert "securityContext" in parsed(OLDEST, path).stderr
    path = compiled_for("{kubeflow: 2.16.0, run_as_user: image}", tmp_path, "infer")
    assert parsed(OLDEST, path).returncode == 0


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("part", ["task", "container", "kubernetes"])
def test_a_field_that_a_server_does_not_know_is_noticed(part, version, compiled, tmp_path):
    graph, platform = yaml.safe_load_all(compiled[0].read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    places = {
        "task": graph["root"]["dag"]["tasks"]["ingest"],
        "container": graph["deploymentSpec"]["executors"]["exec-ingest"]["container"],
        "kubernetes": executors["exec-ingest"],
    }
    places[part]["unheardOf"] = {"a": 1}
    (tmp_path / "graph.yaml").write_text(yaml.safe_dump_all([graph, platform]))
    done = parsed(version, tmp_path / "graph.yaml")
    assert done.returncode == 1 and "refused: " in done.stderr and "unheardOf" in done.stderr


def test_the_example_of_a_version_holds():
    found = doctest.testmod(server_version)
    assert found.attempted and not found.failed
