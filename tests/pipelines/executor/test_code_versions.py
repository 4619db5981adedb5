"""An edited file re-runs the stages that import it and no others: a finished run is repeated on an edited tree."""

import shutil
import subprocess
import sys
from pathlib import Path

import graphs_for_tests as graphs
import pytest
from kfp import dsl

from components.ingest.component import Ingest
from components.pretrain.component import Pretrain
from pipelines import config
from pipelines.kubeflow.adapter import step
from pipelines.run_folder import record

ROOT = Path(__file__).parents[3]
SETTINGS = ("size=nano", "patch=16", "crop=64", "steps=2", "batch_size=2")


@pytest.fixture
def run(tmp_path, make_tree, nuclei):
    """Repeats a run of ingest and pretrain in a copy of the repository; returns task -> origin of its outputs."""
    import tifffile

    tree = make_tree("versions")
    tree.add_stages()
    shutil.copytree(ROOT / "pipelines", tree.root / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    settings = config.load_config(settings=[f"pretrain.{setting}" for setting in SETTINGS])

    @dsl.pipeline(name="beginning")
    def beginning(source: str):
        data = step(settings, Ingest, source=source)
        step(settings, Pretrain, images=data.outputs["images"])

    graph, source = graphs.compiled(beginning, tmp_path / "graph.yaml"), tmp_path / "source"
    source.mkdir()
    for i in range(2):
        tifffile.imwrite(source / f"crop{i}.tif", nuclei[128 * i : 128 * i + 128, :128, 0])
    environment = {**tree.environment(), "CYTOLOOM_THREADS": "1", "CYTOLOOM_DEVICE": "cpu"}

    def repeat(edited: str = "") -> dict[str, str]:
        if edited:
            with (tree.root / edited).open("a") as file:
                file.write("\n# edited\n")
        words = ["run", graph, "--source", source, "--out", tmp_path / "run", "--no-cache"]
        command = [sys.executable, "-m", "pipelines", *map(str, words)]
        done = subprocess.run(command, cwd=tree.root, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return {name: task.origin for name, task in record.load(tmp_path / "run").tasks.items()}

    return repeat


def test_an_edit_reruns_the_stages_that_import_the_file_alone(run):
    assert run() == {"ingest": "computed", "pretrain": "computed"}
    assert run() == {"ingest": "run folder", "pretrain": "run folder"}
    assert run("shared/instances/borders/border_contrast.py") == {"ingest": "run folder", "pretrain": "run folder"}
    assert run("components/ingest/page.py") == {"ingest": "computed", "pretrain": "run folder"}
    assert run("shared/artifacts/manifest.py") == {"ingest": "computed", "pretrain": "computed"}
