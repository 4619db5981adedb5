"""Measure classifiers on real cells, beside a small ConvNet from scratch and logistic regression.

`python tests/benchmarks/quality_classifier.py [--sets malaria,bccd,usiigaci] [--variants SSL,random] [--labels all,100]
[--seeds 0,1,2]` pretrains an encoder on the unlabelled training images of a set once, trains on few or all of their
labels, and scores images of other slides, smears or movies' images. Malaria is also asked to abstain: at a target error
of 5 %, and on images of other kinds.

The images come from `../shared/data` (or CYTOLOOM_DATA). Artifacts are in `runs/quality-classifier` and are made once.
Every finished run appends a line to `quality_classifier.jsonl`; a run is not repeated with the same code.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import cv2
import imagecodecs
import numpy as np

ROOT = Path(__file__).parents[2]
ROWS = Path(__file__).with_name("quality_classifier.jsonl")
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from quality_rows import machine  # noqa: E402

from components.registry import declaration  # noqa: E402
from components.train_classifier.component import TrainClassifier  # noqa: E402
from components.train_classifier.model_input import choose_input  # noqa: E402
from components.train_classifier.splits import choose_images  # noqa: E402
from shared.artifacts.image_set import ImageReader  # noqa: E402
from shared.artifacts.label_set import LabelReader  # noqa: E402
from shared.metrics.classes import class_metrics  # noqa: E402
from shared.metrics.conformal import class_thresholds, distance_limit, prediction_sets  # noqa: E402
from shared.models.class_predictor import ClassPredictor, network_input  # noqa: E402
from shared.models.classifier import Classifier  # noqa: E402
from shared.models.config import ModelInput  # noqa: E402
from shared.models.load import load_model  # noqa: E402
from shared.readers.labels.voc import voc_annotations  # noqa: E402
from shared.stage.version import code_version  # noqa: E402
from shared.system.devices import threads  # noqa: E402

DATA = Path(os.environ.get("CYTOLOOM_DATA") or ROOT.parent / "shared" / "data")
VARIANTS: dict[str, tuple[str, ...]] = {
    "SSL": (),
    "random": (),
    "linear probe": ("--tune", "none", "--learning_rate", "3e-3"),
    "no stem": ("--stem", "false"),
    "weighted loss": ("--balance", "loss"),
    "unbalanced": ("--balance", "none"),
    "ConvNet": (),
    "logistic": (),
}
"""Variant -> settings of `train_classifier`. ConvNet and logistic regression are the peers, of this script."""
LABELS = {"malaria": ("all", "500", "100", "20"), "bccd": ("20",), "usiigaci": ("100",)}
PRETRAIN = {
    "malaria": ("--steps", "1200", "--batch_size", "64"),
    "bccd": ("--steps", "600"),
    "usiigaci": ("--steps", "600"),
}
SIZE = {"malaria": "48", "bccd": "auto", "usiigaci": "auto"}
"""Set -> `size` of `train_classifier`, for the ConvNet as well."""
STEPS = {"all": 2000, "500": 800, "100": 400, "20": 200}
"""Labels -> steps of 32 images."""
TARGET_ERROR, DISTANCE_QUANTILE = 0.05, 0.99
TILE, MIN_CELLS = 128, 0.1
"""Usiigaci: side of a tile, px, and share of cell pixels from which on a tile shows cells; tiles with fewer but some
are left out."""


def main() -> int:
    """Train and score what is not known yet; print a line for each run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", default=",".join(LABELS))
    parser.add_argument(
        "--variants", default="SSL,random,linear probe,ConvNet,logistic", help=f"of {', '.join(VARIANTS)}"
    )
    parser.add_argument("--labels", default="all,500,100,20")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "quality-classifier")
    args = parser.parse_args()
    known = [json.loads(line) for line in args.rows.read_text().splitlines()] if args.rows.is_file() else []
    for run in wanted(args):
        row = next((one for one in known if run.items() <= one.items()), None)
        if row is None:
            row = measure(run, args.out / run["set"])
            with args.rows.open("a") as stream:
                stream.write(json.dumps(row) + "\n")
        shown = ", ".join(f"{name} {value:.4f}" for name, value in row["scores"].items())
        print(f"{run['set']}, {run['variant']}, {run['labels']} labels, seed {run['seed']}: {shown}", flush=True)
    return 0


def wanted(args: argparse.Namespace) -> Iterator[dict]:
    """Yield set, variant, labels, seed and code version of every run."""
    for seed in args.seeds.split(","):
        for name in args.sets.split(","):
            for labels in (one for one in args.labels.split(",") if one in LABELS[name]):
                for variant in args.variants.split(","):
                    if variant == "logistic" and name == "malaria":
                        continue
                    yield {"set": name, "variant": variant, "labels": labels, "seed": int(seed), "version": version()}


def version() -> str:
    """Hash of the code that is measured."""
    codes = (code_version(declaration(stage)) for stage in ("ingest", "pretrain", "train_classifier"))
    return hashlib.sha256("".join(codes).encode()).hexdigest()[:12]


def measure(run: dict, out: Path) -> dict:
    """Train one variant, and score it."""
    data = prepare(run, out)
    started = time.monotonic()
    if run["variant"] == "ConvNet":
        scores = conv_net(run, data)
    elif run["variant"] == "logistic":
        scores = logistic_regression(data)
    else:
        scores = classifier(run, data, out)
    minutes = round((time.monotonic() - started) / 60, 2)
    return {
        **run,
        "scores": scores,
        "minutes": minutes,
        "cores": threads(),
        "date": date.today().isoformat(),
        "machine": machine(),
    }


# --- data -------------------------------------------------------------------------------------------------------------


def prepare(run: dict, out: Path) -> Path:
    """Ingest a set, of BCCD and Usiigaci with as many labelled training images as the run has."""
    if run["set"] == "malaria":
        ingest(DATA / "malaria", out, "--group_pattern", "(?i)([^/]*?)thin")
        return out
    source = out / "source"
    if not source.is_dir():
        {"bccd": write_blood_cells, "usiigaci": write_tiles}[run["set"]](source)
    ingest(source, out)
    few = out / f"labels-{run['labels']}-{run['seed']}"
    if not few.is_dir():
        rng = np.random.default_rng(run["seed"])
        files = sorted((source / "train").rglob("*.png"))
        chosen: list[Path] = []
        while len({path.parent.name for path in chosen}) < 2:  # as they come, but some of both classes
            chosen = [files[number] for number in rng.permutation(len(files))[: int(run["labels"])]]
        for path in chosen:
            link(path, few / "source" / "train" / path.parent.name)
        for path in sorted((source / "test").rglob("*.png")):
            link(path, few / "source" / "test" / path.parent.name)
    ingest(few / "source", few)
    return few


def link(path: Path, folder: Path) -> None:
    """Link a file into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / path.name).symlink_to(path.resolve())


def write_blood_cells(target: Path) -> None:
    """Crop BCCD's white and red cells: train and val become train and test."""
    for split, name in (("train", "train"), ("val", "test")):
        for path in sorted((DATA / "bccd" / split).glob("*.xml")):
            image = imagecodecs.imread(str(path.with_suffix(".jpg")))
            for number, item in enumerate(voc_annotations(path, image.shape[:2]).found or []):
                x, y, w, h = (round(value) for value in item.bbox)
                crop = image[max(0, y) : y + h, max(0, x) : x + w]
                if item.category in ("WBC", "RBC") and min(crop.shape[:2]) >= 16:
                    write(target / name / item.category / f"{path.stem}_{number}.png", crop)


def write_tiles(target: Path) -> None:
    """Cut Usiigaci's labelled images into tiles with cells or without; every third image is test."""
    for number, path in enumerate(sorted((DATA / "usiigaci/labelled").glob("*_masks.png"))):
        image, mask = (
            imagecodecs.imread(str(one)) for one in (path.with_name(path.name.replace("_masks.png", ".tif")), path)
        )
        for y in range(0, image.shape[0] - TILE + 1, TILE):
            for x in range(0, image.shape[1] - TILE + 1, TILE):
                share = (mask[y : y + TILE, x : x + TILE] > 0).mean()
                if 0 < share < MIN_CELLS:
                    continue
                name = "cells" if share else "none"
                folder = target / ("test" if number % 3 == 2 else "train") / name
                write(folder / f"{path.stem}_{y}_{x}.png", image[y : y + TILE, x : x + TILE])


def write(path: Path, image: np.ndarray) -> None:
    """Write a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(image)))


def ingest(source: Path, out: Path, *words: str) -> None:
    """Make the artifacts of a source where there are none."""
    if not (out / "images" / "artifact.json").is_file():
        outputs = ("--images", out / "images", "--labels", out / "labels", "--no_labels", out / "none")
        stage("ingest", out, "--source", source, *outputs, *words)


def stage(name: str, log: Path, *words: object) -> None:
    """Run a stage by its command line, with its messages in a file."""
    log.mkdir(parents=True, exist_ok=True)
    with (log / f"{name}.log").open("a") as stream:
        command = [sys.executable, "-m", "components", name, *map(str, words)]
        subprocess.run(command, cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT, check=True)


def arrays(
    data: Path, split: str, labels: str = "all", seed: int = 0
) -> tuple[list[np.ndarray], np.ndarray, list[str]]:
    """Images, classes and keys of a split; labels: number of malaria's training images, those of ours, or all."""
    reader, classes = ImageReader(data / "images"), LabelReader(data / "labels").classes()
    names, keys = sorted(set(classes.values())), reader.keys(split)
    if labels != "all" and split == "train" and len(keys) > int(labels):
        limited = TrainClassifier.model_construct(max_labels=int(labels), seed=seed)
        keys = choose_images(limited, reader, classes).train
    return [reader.read(key) for key in keys], np.array([names.index(classes[key]) for key in keys]), keys


# --- ours -------------------------------------------------------------------------------------------------------------


def classifier(run: dict, data: Path, out: Path) -> dict[str, float]:
    """Pretrain where there is no encoder yet, train, and return the metrics of val and test."""
    objective = "none" if run["variant"] == "random" else "mae"
    encoder = out / f"encoder-{objective}"
    if not (encoder / "artifact.json").is_file():
        stage(
            "pretrain",
            out,
            "--images",
            out / "images",
            "--encoder",
            encoder,
            "--objective",
            objective,
            *PRETRAIN[run["set"]],
        )
    folder = data / f"{run['variant']}-{run['labels']}-{run['seed']}-{run['version']}".replace(" ", "")
    words = ["--images", data / "images", "--truth", data / "labels", "--encoder", encoder, "--classifier", folder]
    words += [
        "--steps",
        STEPS[run["labels"]],
        "--seed",
        run["seed"],
        "--metrics",
        folder.with_suffix(".json"),
        "--size",
        SIZE[run["set"]],
    ]
    if run["labels"] != "all":
        words += ["--early_stop", "false"] + (["--max_labels", run["labels"]] if run["set"] == "malaria" else [])
    stage("train_classifier", data, *words, *VARIANTS[run["variant"]], "--overwrite")
    metrics = json.loads(folder.with_suffix(".json").read_text())
    scores = {name: value for name, value in metrics.items() if name.startswith(("val_", "test_"))}
    return scores | (abstention(folder, data) if run["set"] == "malaria" else {})


def abstention(folder: Path, data: Path) -> dict[str, float]:
    """Share of the test images that are answered and error among them, and share of other images that are far."""
    model = load_model(folder, Classifier)
    settings, predictor = model.config.postprocessing, ClassPredictor.of(model, "cpu")
    limit = distance_limit(settings.calibration_distances, DISTANCE_QUANTILE)
    images, truth, _ = arrays(data, "test")
    found = predictor(images)
    plausible = prediction_sets(found.probability, class_thresholds(settings.calibration, TARGET_ERROR))
    answered = (plausible.sum(axis=1) == 1) & (found.distance <= limit)
    scores = {
        "answered": float(answered.mean()),
        "answered_error": float((plausible.argmax(axis=1) != truth)[answered].mean()),
        "near": float((found.distance <= limit).mean()),
    }
    return scores | {f"far_{name}": float((predictor(some).distance > limit).mean()) for name, some in other_images()}


def other_images() -> Iterator[tuple[str, list[np.ndarray]]]:
    """(name, images) of kinds that are not malaria."""
    for name, pattern in (("tissue", "dsb2018/histo_*/*_img.png"), ("fluo", "dsb2018/fluo/*_img.png")):
        images = (imagecodecs.imread(str(path)) for path in sorted(DATA.glob(pattern))[:150])
        yield name, [image[..., None] if image.ndim == 2 else image[..., :3] for image in images]


# --- peers ------------------------------------------------------------------------------------------------------------


def conv_net(run: dict, data: Path) -> dict[str, float]:
    """Train a small ConvNet from scratch: three convolutions of 32, 64 and 128 channels, flips and turns.

    It sees the images as ours does: with the same limits, window and size.
    """
    import torch
    from torch import nn

    torch.set_num_threads(threads())
    torch.manual_seed(run["seed"])
    images, truth, keys = arrays(data, "train", run["labels"], run["seed"])
    given, size = ModelInput(channels=images[0].shape[2]), SIZE[run["set"]]
    ours = TrainClassifier.model_construct(size="auto" if size == "auto" else int(size))
    expected = choose_input(ours, ImageReader(data / "images"), keys, given, patch=8)
    x, y = (tensor(images, expected), torch.from_numpy(truth))
    layers: list[nn.Module] = []
    for before, after in ((expected.channels, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    network = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(128, 2))
    steps, rng = STEPS[run["labels"]], np.random.default_rng(run["seed"])
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    for _ in range(steps):
        chosen = rng.integers(len(y), size=32)
        batch = torch.rot90(x[chosen], int(rng.integers(4)), (2, 3))
        loss = nn.functional.cross_entropy(network(batch.flip(3) if rng.random() < 0.5 else batch), y[chosen])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    network.eval()
    return dict(score_splits(data, lambda part: probabilities(network, tensor(part, expected))))


def tensor(images: list[np.ndarray], expected: ModelInput):
    """Images as a tensor (n, C, S, S)."""
    import torch

    return torch.from_numpy(np.stack([network_input(image, expected) for image in images]).transpose(0, 3, 1, 2).copy())


def probabilities(network, x) -> np.ndarray:
    """Probabilities (n, 2)."""
    import torch

    with torch.inference_mode():
        return torch.cat([network(part) for part in x.split(64)]).softmax(dim=1).numpy()


def logistic_regression(data: Path) -> dict[str, float]:
    """Fit logistic regression to colour and area; of one channel to mean and standard deviation."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def features(images: list[np.ndarray]) -> np.ndarray:
        if images[0].shape[2] == 1:
            return np.array([[image.mean(), image.std()] for image in images])
        return np.array([[*image.mean(axis=(0, 1)), image.shape[0] * image.shape[1]] for image in images])

    images, truth, _ = arrays(data, "train")
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(features(images), truth)
    return dict(score_splits(data, lambda part: model.predict_proba(features(part))))


def score_splits(data: Path, predict) -> Iterator[tuple[str, float]]:
    """Yield (SPLIT_METRIC, value) of val and test, by a function images -> probabilities (n, K)."""
    for split in ("val", "test"):
        images, truth, _ = arrays(data, split)
        if images:
            yield from ((f"{split}_{name}", value) for name, value in class_metrics(predict(images), truth))


if __name__ == "__main__":
    cv2.setNumThreads(1)
    sys.exit(main())
