"""Measure detectors on real cells: each variant is trained from scratch and scored on images that it never saw.

`python tests/benchmarks/quality_detector.py [--variants SSL,random] [--seeds 0,1,2] [--steps 1500]` trains on BCCD's
train images, of which a tenth chooses weights and threshold, and scores on its val images. The variants with `10 %`
learn from the boxes of a tenth of the images. `pseudo` learns without labels from the segmentor of a label-free run on
DSB fluorescence, and is compared with the boxes of Otsu's threshold and watershed.

The images come from `../shared/data` (or CYTOLOOM_DATA). Artifacts are in `runs/quality-detector` and are made once.
Every finished run appends a line to `quality_detector.jsonl`; a run is not repeated with the same code and steps.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = Path(__file__).with_name("quality_detector.jsonl")
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from quality_rows import machine  # noqa: E402

from components.registry import declaration  # noqa: E402
from pipelines.run_folder.record import RunRecord  # noqa: E402
from shared.artifacts.annotation import Annotation  # noqa: E402
from shared.artifacts.image_set import ImageReader  # noqa: E402
from shared.artifacts.label_set import LabelReader  # noqa: E402
from shared.metrics.boxes import ALL, box_metrics, precision_recall  # noqa: E402
from shared.models.box_predictor import BoxPredictor  # noqa: E402
from shared.models.detector import Detector  # noqa: E402
from shared.models.load import load_model  # noqa: E402
from shared.stage.version import code_version  # noqa: E402
from shared.system.devices import threads  # noqa: E402

VARIANTS: dict[str, tuple[str, ...]] = {
    "SSL": (),
    "random": ("encoder=none",),
    "frozen": ("encoder_rate=0",),
    "no detail": ("detail=false",),
    "resample": ("pyramid=resample",),
    "resample no detail": ("pyramid=resample", "detail=false"),
    "resnet18": ("backbone=resnet18", "encoder_rate=1"),
    "10 %": ("labels=10",),
    "10 % MixPL": ("labels=10", "unlabelled"),
    "10 % seed": ("labels=10", "unlabelled", "pseudo_threshold=0.5", "max_pseudo_boxes=200", "unlabelled_weight=1"),
    "pseudo": ("set=fluo",),
    "Otsu": ("set=fluo",),
}
"""Variant -> settings of `train_detector`, and of this script: set, encoder, labels (%), unlabelled."""
PRETRAIN = {"bccd": ("--steps", "400", "--downsample", "2"), "fluo": ("--steps", "400")}


def main() -> int:
    """Train and score what is not known yet; print a line for each run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--variants", default="SSL,random,resnet18,no detail", help=f"of {', '.join(VARIANTS)}")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="of train_detector")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "quality-detector")
    args = parser.parse_args()
    known = [json.loads(line) for line in args.rows.read_text().splitlines()] if args.rows.is_file() else []
    for seed in args.seeds.split(","):
        for variant in args.variants.split(","):
            run = {"variant": variant, "seed": int(seed), "steps": args.steps, "set": args.set, "version": version()}
            row = next((one for one in known if run.items() <= one.items()), None) or measure(run, args.out)
            if row not in known:
                with args.rows.open("a") as stream:
                    stream.write(json.dumps(row) + "\n")
            shown = ", ".join(f"{name} {row['scores'][name]:.3f}" for name in sorted(row["scores"]) if "50" in name)
            print(f"{variant}, seed {seed}: {shown}; {row['minutes'] * row['cores']:.1f} core minutes", flush=True)
    return 0


def version() -> str:
    """Hash of the code that is measured."""
    codes = (code_version(declaration(stage)) for stage in ("pretrain", "train_detector"))
    return hashlib.sha256("".join(codes).encode()).hexdigest()[:12]


def measure(run: dict, out: Path) -> dict:
    """Train one variant, and score it on the split test."""
    settings = dict(word.partition("=")[::2] for word in (*VARIANTS[run["variant"]], *run["set"]))
    name, share = settings.pop("set", "bccd"), int(settings.pop("labels", 100))
    data = prepare(name, share, out / f"{name}-{share}")
    started = time.monotonic()
    if run["variant"] == "Otsu":
        scores = score(data, otsu_boxes(data))
    else:
        scores = score(data, detector_boxes(data, train(run, settings, name, data)))
    known = {"cores": threads(), "date": date.today().isoformat(), "machine": machine()}
    return {**run, "data": name, "scores": scores, "minutes": round((time.monotonic() - started) / 60, 2), **known}


# --- data -------------------------------------------------------------------------------------------------------------


def prepare(name: str, share: int, out: Path) -> Path:
    """Link the images of a set with the labels of `share` % of the training images, and ingest them."""
    data = Path(os.environ.get("CYTOLOOM_DATA") or ROOT.parent / "shared" / "data")
    if not (out / "images" / "artifact.json").is_file():
        folders = {"bccd": ("bccd/train", "bccd/val"), "fluo": ("dsb2018/fluo",)}[name]
        for path in (path for folder in folders for path in sorted((data / folder).iterdir())):
            stem = path.stem.removesuffix("_masks").removesuffix("_img")
            split = ("test" if path.parent.name == "val" else "train") if name == "bccd" else fluo_split(stem)
            if split == "train":
                split = "val" if tenth(stem) == 0 else "train"
                if path.suffix == ".xml" and tenth(f"label {stem}") >= share / 10:
                    continue
            link = out / "source" / split / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())
        outputs = ("--images", out / "images", "--labels", out / "labels", "--no_labels", out / "none")
        stage("ingest", out, "--source", out / "source", *outputs)
    return out


def fluo_split(stem: str) -> str:
    """Four tenths of the images are scored, as in quality.py."""
    return "test" if tenth(stem) < 4 else "train"


def tenth(text: str) -> int:
    """Number from 0 to 9 that follows from a text."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % 10


def stage(name: str, log: Path, *words: object) -> None:
    """Run a stage by its command line, with its messages in a file."""
    log.mkdir(parents=True, exist_ok=True)
    with (log / f"{name}.log").open("a") as stream:
        command = [sys.executable, "-m", "components", name, *map(str, words)]
        subprocess.run(command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, check=True)


# --- training and scores ----------------------------------------------------------------------------------------------


def train(run: dict, settings: dict[str, object], name: str, data: Path) -> Path:
    """Make the encoder where there is none yet, and train a detector."""
    objective, seed = settings.pop("encoder", "mae"), run["seed"]
    encoder = data / f"encoder-{objective}-{seed}"
    if not (encoder / "artifact.json").is_file():
        words = (*PRETRAIN[name], "--objective", objective, "--seed", seed)
        stage("pretrain", data, "--images", data / "images", "--encoder", encoder, *words)
    out = data / f"{run['variant']}-{seed}-{run['steps']}-{time.time():.0f}".replace(" ", "")
    words = ["--images", data / "images", "--truth", data / "labels", "--encoder", encoder]
    if "unlabelled" in settings:
        words += ["--unlabelled", data / "images"]
        del settings["unlabelled"]
    if run["variant"] == "pseudo":
        words += ["--pseudo", segmented(data), "--labels", "pseudo"]
    if data.name.endswith("-10"):  # two labelled images are too few to choose weights by
        settings["valid_every"] = run["steps"]
    words += [word for field, value in settings.items() for word in (f"--{field}", value)]
    stage("train_detector", data, *words, "--steps", run["steps"], "--seed", seed, "--detector", out)
    return out


def segmented(data: Path) -> Path:
    """Predictions of the segmentor of a label-free run on the images."""
    run = data / "label_free"
    if not (run / "run.json").is_file():
        command = [sys.executable, "-m", "pipelines", "run", "label_free", "--source", data / "source", "--out", run]
        subprocess.run([*map(str, command)], cwd=ROOT, check=True)
    record = RunRecord.model_validate_json((run / "run.json").read_text())
    return run / record.tasks["infer"].outputs["predictions"].path


Found = dict[str, list[Annotation]]


def detector_boxes(data: Path, folder: Path) -> Found:
    """Objects of the test images."""
    detector, reader = load_model(folder, Detector), ImageReader(data / "images")
    predictor, names = BoxPredictor.of(detector, "cpu"), detector.config.architecture.classes
    return {key: predictor(reader.read(key)).annotations(names) for key in reader.keys("test")}


def otsu_boxes(data: Path) -> Found:
    """Boxes of Otsu's threshold and watershed, all of score 1."""
    import numpy as np
    from skimage.filters import threshold_otsu

    from components.train_detector.labelled_images import instance_boxes
    from shared.instances.watershed import split_touching

    reader, found = ImageReader(data / "images"), {}
    for key in reader.keys("test"):
        grey = reader.read(key).mean(axis=2)
        labels = split_touching((grey > threshold_otsu(grey)).astype(np.uint8))
        found[key] = instance_boxes(labels, np.ones(int(labels.max(initial=0)), bool))
    return found


def score(data: Path, found: Found) -> dict[str, float]:
    """COCO's metrics; and TP / (TP + FP + FN) at IoU 0.5 and the best threshold, as `threat50`."""
    from components.train_detector.labelled_images import instance_boxes

    labels = LabelReader(data / "labels")
    truth = {key: items for key, items in labels.annotations().items() if key in found}
    for key in sorted(set(labels.entries) & set(found)):
        mask = labels.mask(key)
        truth[key] = instance_boxes(mask, [True] * int(mask.max(initial=0)))
    curve = precision_recall(truth, found)[ALL]
    threat = curve.f1 / (2 - curve.f1)
    return box_metrics(truth, found) | {"threat50": float(threat.max(initial=0.0)), "f1": float(curve.f1.max())}


if __name__ == "__main__":
    sys.exit(main())
