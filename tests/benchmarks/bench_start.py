"""Measure start-up: `--help` of every stage, and the time that the executor adds to each task.

`python tests/benchmarks/bench_start.py`: half a minute. Targets: 0.5 s for `--help`, which loads no tensor library;
0.3 s per task for the executor itself, beyond the stage's process.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/helpers")]

import graphs_for_tests as graphs  # noqa: E402
from kfp import dsl  # noqa: E402

from components.registry import names  # noqa: E402
from pipelines.run_folder import record  # noqa: E402

REPEATS, TASKS = 5, 12


def seconds(command: list[str], **options: object) -> float:
    """Return the wall time of a process in s."""
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, **options)
    return time.perf_counter() - start


def bench_help() -> None:
    """Print the median of REPEATS `--help` of each stage, and of bare Python."""
    bare = median(seconds([sys.executable, "-c", "pass"]) for _ in range(REPEATS))
    print(f"bare Python               {bare:.3f} s")
    for name in names():
        command = [sys.executable, "-m", "components", name, "--help"]
        print(f"{name + ' --help':25} {median(seconds(command) for _ in range(REPEATS)):.3f} s")


def bench_executor() -> None:
    """Run a chain of TASKS trivial tasks, then repeat the command with every task finished."""

    @dsl.pipeline(name="chain")
    def pipeline(history: str):
        task = graphs.add("t0", history)
        for number in range(1, TASKS):
            task = graphs.add(f"t{number}", history, artifacts={"a": task.outputs["out"]})

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "history").mkdir()
        graph = graphs.compiled(pipeline, folder / "chain.yaml")
        words = [sys.executable, "-m", "pipelines", "run", str(graph), "--out", str(folder / "run")]
        words += ["--param", f"history={folder / 'history'}"]
        environment = {**os.environ, "CYTOLOOM_CACHE": str(folder / "cache")}
        whole = seconds(words, env=environment)
        run = record.load(folder / "run")
        processes = sum(task.seconds for task in run.tasks.values())
        again = seconds(words, env=environment)
    print(f"{TASKS} tasks in a chain       {whole:.2f} s, of it {processes:.2f} s in the tasks' processes")
    print(f"executor, each task       {(run.seconds - processes) / TASKS:.3f} s of its own")
    print(f"start and end of a run    {whole - run.seconds:.2f} s")
    print(f"all finished before       {again:.2f} s")


if __name__ == "__main__":
    bench_help()
    bench_executor()
