"""Quality on real cells: every set with the one default configuration, or variants of it, scored on held-out images.

`make quality`, or `python tests/benchmarks/quality.py [--sets tissue,cytology] [--variants default,DINO] [--seeds 0]`.

Images are those of `../shared/data` (or CYTOLOOM_DATA); 40 % of the files, by a hash of their name, are scored and
never trained on. Runs lie in `runs/quality` and are not computed twice: what was stopped goes on where it was.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from pipelines.record import RunRecord  # noqa: E402
from shared.images import ImageReader  # noqa: E402
from shared.labels import LabelReader, decode_labels  # noqa: E402
from shared.metrics import Tally, tally  # noqa: E402

SETS = {
    "usiigaci": ("usiigaci/labelled", "usiigaci/unlabelled"),
    "fluo": ("dsb2018/fluo",),
    "tissue": ("dsb2018/histo_purple", "dsb2018/histo_light"),
    "cytology": ("dsb2018/gray_bright",),
    "mixed": ("dsb2018/fluo", "dsb2018/histo_purple", "dsb2018/histo_light", "dsb2018/gray_bright"),
}
KINDS = {"fluo": "fluo", "histo_purple": "tissue", "histo_light": "tissue", "gray_bright": "cytology"}
"""Folder -> the set that the mixed one's images are compared with."""
VARIANTS: dict[str, tuple[str, ...]] = {
    "default": (),
    "one round": ("--set", "rounds=1"),
    "no feedback": ("--set", "cluster.model_weight=0"),
    "random encoder": ("--set", "pretrain.objective=none"),
    "DINO": ("--set", "pretrain.objective=dino"),
    "clusters bypassed": ("--set", "cluster.cluster_weight=0"),
    "no refinement": ("--set", "refine_masks.edges=never"),
    "1 label": ("--param", "use_labels=1"),
    "5 labels": ("--param", "use_labels=5"),
    "20 labels": ("--param", "use_labels=20"),
}
HELD_OUT = 4
"""Tenths of the files that are scored."""
COLUMNS = ("dice", "f1", "ap50", "seg")


def main() -> int:
    """Run what was asked for, one after another, and print a line for each and a table at the end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--variants", default="default", help=f"of: {', '.join(VARIANTS)}")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "quality")
    args = parser.parse_args()
    data = Path(os.environ.get("CYTOLOOM_DATA") or ROOT.parent / "shared" / "data")
    if not data.is_dir():
        print(f"error: {data} is no folder; set CYTOLOOM_DATA to where the images are", file=sys.stderr)
        return 1
    lines = ["| set | variant | seed | images of | Dice | F1 | AP50 | SEG | rounds (Dice, F1) | handed on | seconds |"]
    lines.append("|---" * 11 + "|")
    print("\n".join(lines), flush=True)
    for seed in args.seeds.split(","):
        for name in args.sets.split(","):
            source = prepare(data, name, args.out / "images" / name)
            for variant in args.variants.split(","):
                run = args.out / f"{name}-{variant.replace(' ', '-')}-{seed}"
                for line in rows(name, variant, seed, source, run):
                    print(line, flush=True)
    return 0


def prepare(data: Path, name: str, target: Path) -> Path:
    """Links to the set's files in `target`/train and /test; label images go along, and are only used to score."""
    shutil.rmtree(target, ignore_errors=True)
    for folder in SETS[name]:
        for path in sorted((data / folder).iterdir()):
            stem = path.stem.removesuffix("_masks").removesuffix("_img")
            split = "train" if folder.endswith("unlabelled") or not held_out(stem) else "test"
            link = target / split / Path(folder).name / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
    return target


def held_out(stem: str) -> bool:
    """Whether the file of this name is scored."""
    return int(hashlib.sha256(stem.encode()).hexdigest(), 16) % 10 < HELD_OUT


def rows(name: str, variant: str, seed: str, source: Path, run: Path) -> Iterator[str]:
    """Run, or go on with, one configuration; a line of the table for all images, of the mixed set one for each kind."""
    command = [sys.executable, "-m", "pipelines", "run", "label_free", "--source", str(source), "--out", str(run)]
    command += ["--param", f"seed={seed}", *VARIANTS[variant]]
    log = run.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as stream:
        started = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        yield f"| {name} | {variant} | {seed} | failed after {time.monotonic() - started:.0f} s: see {log} |"
        return
    record = RunRecord.model_validate_json((run / "run.json").read_text())
    seconds = sum(task.seconds for task in record.tasks.values())
    for kind, scores in scored(run, record).items():
        numbers = " | ".join(f"{scores[column]:.3f}" for column in COLUMNS)
        yield f"| {name} | {variant} | {seed} | {kind} | {numbers} | {rounds(record)} | {seconds:.0f} |"


def rounds(record: RunRecord) -> str:
    """Dice and F1 of every round that ran, then which of them was handed on."""
    parts, chosen = [], "last"
    for path, task in sorted(record.tasks.items()):
        if task.stage == "evaluate" and "/" in path and task.metrics:
            parts.append(f"{task.metrics['dice']:.3f}, {task.metrics['f1']:.3f}")
        if task.stage == "gate" and task.values.get("best_round") is not None:
            chosen = f"em-{task.values['best_round']}"
    return f"{'; '.join(parts)} | {chosen}"


def scored(run: Path, record: RunRecord) -> dict[str, dict[str, float]]:
    """Scores of the run's predictions on the held-out images: of each kind, and where there are several of all."""
    images = ImageReader(run / record.tasks["ingest"].outputs["images"].path)
    truth = LabelReader(run / record.tasks["ingest"].outputs["labels"].path)
    labels = run / record.tasks["infer"].outputs["predictions"].path / "labels"
    totals: dict[str, Tally] = {}
    for key in images.keys("test"):
        folder = Path(images.entries[key].source).parent.name
        found = np.asarray(decode_labels((labels / f"{key}.tif").read_bytes()))
        kind = KINDS.get(folder, folder)
        totals[kind] = totals.get(kind, Tally()) + tally(truth.mask(key), found)
    if len(totals) > 1:
        totals["all"] = sum(totals.values(), Tally())
    return {kind: total.metrics() for kind, total in totals.items()}


if __name__ == "__main__":
    sys.exit(main())
