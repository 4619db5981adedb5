"""Compare containers with processes: the start of a stage, and the whole demo with every artifact in S3.

`make bench-containers`, or `python tests/benchmarks/bench_containers.py [--demo]`: two minutes, with the demo ten more.
It uses the Docker engine that answers, or starts one. Targets: containers take at most 1.2 times as long to a stage's
first line of work, and 1.3 times as long for the demo.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/helpers")]

import stardist  # noqa: E402
import tifffile  # noqa: E402
from docker_engine import engine, images  # noqa: E402
from s3_server import Server  # noqa: E402

REPEATS = 5
PRETRAIN = {"size": "nano", "patch": 16, "crop": 64, "batch_size": 2, "steps": 1, "downsample": 1}
FIRST_LINES = {"ingest": "layout: ", "pretrain": "computing on "}
"""Stage -> start of the line that it logs when its work begins."""


def until(command: list[str], wanted: str) -> float:
    """Seconds from the start of a command to its first line that contains `wanted`; waits for the command to end."""
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    output, seconds = "", 0.0
    for line in process.stderr:
        output += line
        if wanted in line and not seconds:
            seconds = time.perf_counter() - began
    if process.wait() or not seconds:
        raise RuntimeError(output)
    return seconds


def bench_start(references: dict[str, str]) -> None:
    """Time a stage from its command to its first line of work."""
    for stage, target in (("ingest", "cpu"), ("pretrain", "torch")):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / "plain").mkdir()
            plane = tifffile.imread(Path(stardist.__file__).parent / "data/images/img2d.tif")
            tifffile.imwrite(folder / "plain/a.tif", plane[:256, :256])
            outputs = ("images", "labels", "no_labels") if stage == "ingest" else ("encoder",)
            words = [stage, "--source" if stage == "ingest" else "--images", str(folder / "plain"), "--overwrite"]
            words += [word for name in outputs for word in (f"--{name}", str(folder / name))]
            if stage == "pretrain":
                words += [word for name, value in PRETRAIN.items() for word in (f"--{name}", str(value))]
            user = f"{os.getuid()}:{os.getgid()}"
            docker = ["docker", "run", "--rm", "--network", "host", "--user", user, "-v", f"{folder}:{folder}"]
            ways = {
                "process": [sys.executable, "-m", "components", *words],
                "container": [*docker, references[target], *words],
            }
            times: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(REPEATS):
                for name, command in ways.items():
                    times[name].append(until(command, FIRST_LINES[stage]))
            process, container = (median(times[name]) for name in ways)
            print(f"{stage}: process {process:.2f} s, container {container:.2f} s: {container / process:.2f}x")


def bench_demo(server: Server) -> None:
    """Time the demo of `make run` with processes, then with containers and every artifact in the bucket."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        base = [sys.executable, "-m", "pipelines.demo", "--no-cache"]
        ways = {
            "processes": [*base, "--out", str(folder / "processes")],
            "containers, S3": [
                *base,
                *("--out", str(folder / "containers"), "--backend", "docker", "--store", f"s3://{server.bucket}/demo"),
            ],
        }
        taken = {}
        for name, command in ways.items():
            began = time.monotonic()
            subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, **server.environment()})
            taken[name] = time.monotonic() - began
            print(f"demo, {name}: {taken[name]:.0f} s")
        print(f"ratio {taken['containers, S3'] / taken['processes']:.2f}x")


def main() -> int:
    """Run the benchmark; the demo with `--demo` only."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--demo", action="store_true", help="also time the whole demo, once each way")
    args = parser.parse_args()
    with ExitStack() as stack:
        try:
            stack.enter_context(engine())
            references = images("cpu", "torch", "export")
        except (OSError, RuntimeError) as error:
            print(f"error: Docker: no engine answers or could be started ({error})", file=sys.stderr)
            return 1
        bench_start(references)
        if args.demo:
            server = Server(Path(stack.enter_context(tempfile.TemporaryDirectory())))
            stack.callback(server.stop)
            bench_demo(server)
    return 0


if __name__ == "__main__":
    sys.exit(main())
