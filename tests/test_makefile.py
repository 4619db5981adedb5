"""Targets for benchmarks: one that fails is named at the end and does not stop the others."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHES = {path.name for path in (ROOT / "tests/benchmarks").glob("bench_*.py")}


def made(target: str, folder: Path, fails: str, *variables: str) -> tuple[subprocess.CompletedProcess, list[str]]:
    """Run `make target` with a `python` that notes its script and fails for one; also return the scripts."""
    python, noted = folder / "python", folder / "noted"
    noted.write_text("")
    python.write_text(f'#!/bin/sh\necho "$1" >> {noted}\ncase "$1" in *{fails}) exit 3;; esac\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    command = ["make", "-o", "dev", target, f"BIN={folder}", *variables]
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return done, [Path(line).name for line in noted.read_text().splitlines()]


def test_one_that_fails_is_named_and_the_others_run(tmp_path: Path) -> None:
    done, ran = made("bench", tmp_path, fails="bench_kmeans.py")
    assert done.returncode and "error: failed: tests/benchmarks/bench_kmeans.py\n" in done.stderr
    assert set(ran) == {name for name in BENCHES if not name.endswith("_gpu.py")} - {"bench_containers.py"}
    assert made("bench", tmp_path, fails="nothing.py")[0].returncode == 0


def test_what_needs_docker_has_a_target_of_its_own(tmp_path: Path) -> None:
    assert made("bench-containers", tmp_path, fails="nothing.py")[1] == ["bench_containers.py"]
    assert made("bench-containers", tmp_path, fails="containers.py")[0].returncode


def test_quality_is_measured_of_each_model_or_of_one(tmp_path: Path) -> None:
    done, ran = made("quality", tmp_path, "quality_classifier.py")
    assert ran == ["quality.py", "quality_classifier.py", "quality_detector.py"]
    assert done.returncode and "error: failed: tests/benchmarks/quality_classifier.py\n" in done.stderr
    assert made("quality", tmp_path, "nothing.py", "OF=detector", "QUALITY=--seeds 3")[1] == ["quality_detector.py"]


@pytest.mark.parametrize(("scripts", "message"), [("", "no such file"), ("bench_any_gpu.py", "finds no GPU")])
def test_benchmarks_of_a_gpu_do_not_pass_without_one(scripts, message):
    command = ["make", "-o", "dev", "bench-gpu", f"BIN={Path(sys.executable).parent}", f"GPU_BENCHES={scripts}"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode != 0 and "error: " in done.stderr
    assert message in done.stderr and "==" not in done.stdout
