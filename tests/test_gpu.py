"""On a GPU: the same results as on the CPU, up to the precision it computes with. `make test-gpu`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from loop_artifacts import Data, dice
from real_labels import ROOT, wheel_nuclei
from small_segmentor import trained, write_model

from components.cluster.coreset_kmeans import kmeans, nearest_centroids
from components.export_model.component import ExportModel
from components.export_model.main import run as export_model
from shared.models.runtimes.tensorrt_runtime import missing_requirement
from shared.models.tiled_inference import TiledPredictor
from shared.system.devices import faiss_gpus

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """The wheel's nuclei, in four parts."""
    image, mask = wheel_nuclei()
    parts = [(image[y : y + 256, x : x + 256], mask[y : y + 256, x : x + 256]) for y in (0, 256) for x in (0, 256)]
    return Data(tmp_path_factory.mktemp("gpu"), parts)


def train(data: Data, objective: str, out: Path, **environment: str) -> tuple[dict[str, float], str]:
    """Metrics of a short pretraining, and its log."""
    out.mkdir()
    arguments = {"images": data.images, "encoder": out / "encoder", "metrics": out / "metrics.json"}
    arguments |= {"objective": objective, "steps": 20, "batch_size": 16, "crop": 64, "downsample": "1"}
    words = [str(word) for name, value in arguments.items() for word in (f"--{name}", value)]
    done = subprocess.run(
        [sys.executable, "-m", "components", "pretrain", *words],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((out / "metrics.json").read_text()), done.stderr


@pytest.mark.parametrize("objective", ["mae", "dino"])
def test_training_reaches_the_same_loss(data: Data, objective: str, tmp_path: Path) -> None:
    on_gpu, said = train(data, objective, tmp_path / "gpu", CYTOLOOM_DEVICE="cuda", CYTOLOOM_WORKERS="1")
    on_cpu, _ = train(data, objective, tmp_path / "cpu", CYTOLOOM_DEVICE="cpu")
    assert f"computing on {torch.cuda.get_device_name(0)}" in said
    assert on_gpu["loss"] == pytest.approx(on_cpu["loss"], rel=0.02)


def test_several_gpus_share_the_batch(data: Data, tmp_path: Path) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU only")
    one, _ = train(data, "mae", tmp_path / "one", CYTOLOOM_WORKERS="1")
    all_of_them, said = train(data, "mae", tmp_path / "all")
    assert f"training in {torch.cuda.device_count()} processes" in said
    assert all_of_them["loss"] == pytest.approx(one["loss"], rel=0.01)


def test_predictions_are_those_of_the_cpu() -> None:
    image, mask = wheel_nuclei()
    on_gpu, on_cpu = (TiledPredictor.of(trained(), where, batch_size=8)(image[..., None]) for where in ("cuda", "cpu"))
    assert np.abs(on_gpu - on_cpu).max() < 0.02
    assert dice(on_gpu[0] >= 0.5, mask) == pytest.approx(dice(on_cpu[0] >= 0.5, mask), abs=1e-3)


def test_clusters_are_as_tight(monkeypatch: pytest.MonkeyPatch) -> None:
    if not faiss_gpus():
        pytest.skip("faiss-gpu is not installed: requirements/faiss.lock has it")
    image = wheel_nuclei()[0].astype(np.float32)
    points = np.lib.stride_tricks.sliding_window_view(image, (8, 8))[::2, ::2].reshape(-1, 64).copy()
    inertia = {}
    for where in ("cuda", "cpu"):
        monkeypatch.setenv("CYTOLOOM_DEVICE", where)
        faiss_gpus.cache_clear()
        centroids = kmeans(points, 16, 0)
        inertia[where] = float(((points - centroids[nearest_centroids(points, centroids)]) ** 2).sum())
    assert inertia["cuda"] == pytest.approx(inertia["cpu"], rel=0.01)


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_the_engine_finds_the_same_cells(data: Data, precision: str, tmp_path: Path) -> None:
    if missing := missing_requirement("cuda"):
        pytest.skip(f"{missing}; the image `export` has them")
    given = {"images": data.images, "model": write_model(tmp_path / "model"), "exported": tmp_path / "exported"}
    (tmp_path / "exported").mkdir()
    result = export_model(ExportModel(**given, accepted=tmp_path / "accepted", precision=precision))
    assert result.values == {"accepted": True}
    assert (tmp_path / "exported/model.engine").stat().st_size > 100_000
    assert result.metrics["tensorrt_f1"] >= 0.98
