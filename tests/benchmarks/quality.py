"""Measure the quality on real cells: each set with the default configuration or a variant, scored on held-out images.

`make quality`, or `python tests/benchmarks/quality.py [--sets tissue,cytology] [--variants default,DINO] [--seeds 0]`
runs the default variant unless `--variants` says otherwise; `make quality QUALITY="--variants all"` adds the ablations.

The images come from `../shared/data` (or CYTOLOOM_DATA). 40 % of the files, chosen by a hash of their name, are scored
and never trained on. Run folders are in `runs/quality`, scores in `quality.jsonl`; the table of `RESULTS.md` is made
from them. A run is not repeated with the same code, and an interrupted run continues.

With `--at-once 2` two runs share the cores. This saves time: on half the cores a run is more than half as fast. Core
minutes are the seconds of a run times the cores it had.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import cv2
import numpy as np
import skimage.filters
from quality_rows import Kept, Row, dated
from quality_sets import SETS, WHEEL_SETS, prepare
from quality_table import NO_EM, head, insert, summary, text

ROOT = Path(__file__).parents[2]
ROWS, RESULTS = Path(__file__).with_name("quality.jsonl"), Path(__file__).with_name("RESULTS.md")
sys.path.insert(0, str(ROOT))

from quality_scores import scored  # noqa: E402

from components.cluster.foreground_model import PROPOSAL_IMAGES  # noqa: E402
from pipelines.run_folder.record import RunRecord  # noqa: E402
from shared.artifacts.image_set import ImageReader  # noqa: E402
from shared.artifacts.keys import evenly_spaced  # noqa: E402
from shared.artifacts.label_set import LabelReader  # noqa: E402
from shared.instances.watershed import split_touching  # noqa: E402
from shared.proposals.proposal_selection import ProposalSelection  # noqa: E402

OTSU = "Otsu"
"""Variant without training: Otsu's threshold and the distance watershed."""
UNTRAINED = (NO_EM, OTSU)
VARIANTS: dict[str, tuple[str, ...]] = {
    "default": (),
    NO_EM: (),
    OTSU: (),
    "one round": ("--set", "rounds=1"),
    "no feedback": ("--set", "cluster.model_weight=0"),
    "random encoder": ("--set", "pretrain.objective=none"),
    "hand features": ("--set", "extract_features.descriptor=filters"),
    "DINO": ("--set", "pretrain.objective=dino"),
    "MAE of pixels": ("--set", "pretrain.predict=pixels"),
    "clusters bypassed": ("--set", "cluster.cluster_weight=0"),
    "no edges": ("--set", "refine_masks.watershed=never"),
    "no refinement": ("--set", "refine_masks.refine=false"),
    "1 label": ("--param", "use_labels=1"),
    "5 labels": ("--param", "use_labels=5"),
    "20 labels": ("--param", "use_labels=20"),
}


def main() -> int:
    """Run the configurations, print a line for each, and at the end a table of all that are known."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument(
        "--variants",
        default=["default"],
        type=variants,
        help=f"all, or a list with commas (default: default): {', '.join(VARIANTS)}",
    )
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--at-once", type=int, default=1, help="runs that share the cores (default %(default)s)")
    parser.add_argument("--rows", type=Path, default=ROWS, help="file that keeps the scores (default %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "quality")
    args = parser.parse_args()
    data = Path(os.environ.get("CYTOLOOM_DATA") or ROOT.parent / "shared" / "data")
    if not data.is_dir():
        print(f"error: {data}: not a folder; set CYTOLOOM_DATA to the folder of images", file=sys.stderr)
        return 1
    kept = Kept(args.rows)
    print(head(), flush=True)
    for name in args.sets.split(","):
        prepare(args.out / "wheels" if name in WHEEL_SETS else data, name, args.out / "images" / name)
    with ThreadPoolExecutor(args.at_once, initializer=take_cores, initargs=(shares(args.at_once),)) as pool:
        jobs = [
            pool.submit(measure, kept, name, args.variants, seed, args.out)
            for seed in args.seeds.split(",")
            for name in args.sets.split(",")
        ]
        failed = [name for job in jobs for name in job.result()]
    print(summary(kept.rows))
    if args.rows == ROWS:
        insert(RESULTS, kept.rows)
    if failed:
        print(f"error: failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def shares(count: int) -> "SimpleQueue[set[int]]":
    """Divide the cores that this process may use into `count` equal parts."""
    cores = sorted(os.sched_getaffinity(0))
    if count > len(cores):
        raise SystemExit(f"error: --at-once: {count} runs need as many cores; at most {len(cores)}")
    parts: SimpleQueue[set[int]] = SimpleQueue()
    for i in range(count):
        parts.put(set(cores[i * len(cores) // count : (i + 1) * len(cores) // count]))
    return parts


def take_cores(parts: "SimpleQueue[set[int]]") -> None:
    """Bind this thread, and the processes that it starts, to one of the parts."""
    os.sched_setaffinity(0, parts.get())


def measure(kept: Kept, name: str, wanted: list[str], seed: str, out: Path) -> list[str]:
    """Run the variants of one set and seed one after another, so that they share the cache; return the failed ones."""
    failed = []
    for variant in wanted:
        run_seed = "" if variant in UNTRAINED else seed
        if not kept.of(name, variant, run_seed):
            run = out / f"{name}-{variant.replace(' ', '-')}-{seed}"
            found = list(rows(name, variant, seed, out / "images" / name, run))
            if not found:
                failed.append(run.name)
                continue
            kept.replace(dated(found, len(os.sched_getaffinity(0))))
        for row in kept.of(name, variant, run_seed):
            print(text(row), flush=True)
    return failed


def variants(text: str) -> list[str]:
    """Split `default,DINO` into names; `all` stands for every variant."""
    names = list(VARIANTS) if text == "all" else text.split(",")
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r}: no such variant; one of: all, {', '.join(VARIANTS)}")
    return names


def rows(name: str, variant: str, seed: str, source: Path, run: Path) -> Iterator[Row]:
    """Run or continue one configuration; yield a row for each kind of image, and for all of them."""
    if variant in UNTRAINED:
        yield from untrained(name, variant, source, run)
        return
    parameters = ["--param", f"seed={seed}", *VARIANTS[variant]]
    command = ["pipelines", "run", "label_free", "--source", str(source), "--out", str(run), *parameters]
    if not python(command, run.with_suffix(".log")):
        return
    record = RunRecord.model_validate_json((run / "run.json").read_text())
    done = record.tasks.values()
    seconds = elapsed([(task.started, task.started + task.seconds) for task in done if task.started])
    seconds += sum(task.seconds for task in done if not task.started)  # done in an earlier sitting
    images, truth = (run / record.tasks["ingest"].outputs[output].path for output in ("images", "labels"))
    predictions = LabelReader(run / record.tasks["infer"].outputs["predictions"].path)

    def predicted(key: str, _: np.ndarray) -> np.ndarray:
        return predictions.mask(key)

    for kind, scores in scored(name, ImageReader(images), LabelReader(truth), predicted).items():
        reached, chosen = rounds(record)
        yield Row(
            name=name,
            variant=variant,
            seed=seed,
            kind=kind,
            scores=scores,
            rounds=reached,
            chosen=chosen,
            seconds=seconds,
        )


def elapsed(spans: list[tuple[float, float]]) -> float:
    """Seconds during which at least one task was running: the length of the union of the spans."""
    total, end = 0.0, 0.0
    for start, stop in sorted(spans):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def untrained(name: str, variant: str, source: Path, run: Path) -> Iterator[Row]:
    """Score what needs no training: the first proposal, as `cluster` selects it from the training images, or Otsu's."""
    images, labels = run / "images", run / "labels"
    if not (images / "artifact.json").is_file():
        outputs = ["--images", str(images), "--labels", str(labels), "--no_labels", str(run / "none")]
        if not python(["components", "ingest", "--source", str(source), *outputs], run.with_suffix(".log")):
            return
    reader = ImageReader(images)
    started = time.monotonic()
    selection = ProposalSelection.fit(reader.read(key) for key in evenly_spaced(reader.keys("train"), PROPOSAL_IMAGES))

    def predicted(_: str, image: np.ndarray) -> np.ndarray:
        mask = otsu_mask(image) if variant == OTSU else selection.probability(image) >= 0.5
        return split_touching(mask.astype(np.uint8))

    for kind, scores in scored(name, reader, LabelReader(labels), predicted).items():
        took = time.monotonic() - started
        yield Row(name=name, variant=variant, seed="", kind=kind, scores=scores, rounds=[], chosen=None, seconds=took)


def otsu_mask(image: np.ndarray) -> np.ndarray:
    """Otsu's threshold of the smoothed mean of the channels, with the smaller class as foreground: (H, W) bool."""
    values = cv2.GaussianBlur(image.astype(np.float32).mean(axis=-1), (0, 0), 1.0)
    above = values > skimage.filters.threshold_otsu(values) if np.ptp(values) > 0 else np.zeros(values.shape, bool)
    return above if above.mean() < 0.5 else ~above


def python(command: list[str], log: Path) -> bool:
    """Run a module of the project with its output in a file; return whether it succeeded."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as stream:
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:
        print(f"error: {' '.join(command)} failed: see {log}", file=sys.stderr)
    return done.returncode == 0


def rounds(record: RunRecord) -> tuple[list[tuple[float, float]], int | None]:
    """Dice and F1 of every round, and the number of the selected one."""
    reached, chosen = [], None
    for path, task in sorted(record.tasks.items()):
        if task.stage == "evaluate" and "/" in path and task.metrics:
            reached.append((task.metrics["dice"], task.metrics["f1"]))
        if task.stage == "select_model" and task.values.get("best_round") is not None:
            chosen = int(task.values["best_round"])
    return reached, chosen


if __name__ == "__main__":
    sys.exit(main())
