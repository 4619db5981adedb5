"""`evaluate`: predict the labelled images and compare with what is known of them."""

import csv
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluate.component import Evaluate
from components.evaluate.pictures import Extremes, panel
from shared.cells import find
from shared.devices import device, threads
from shared.errors import ArtifactError
from shared.images import ImageReader
from shared.keys import spread
from shared.labels import LabelReader
from shared.metrics import Tally, tally
from shared.models.segmentor import load_segmentor
from shared.parallel import in_order
from shared.progress import track
from shared.report import Page
from shared.stage import Result
from shared.tiling import predict_maps

PIXELS = ["dice", "iou"]
OBJECTS = ["precision", "recall", "f1", "ap50", "ap75", "map", "pq", "aji", "seg", "det"]
COLUMNS = ["image", "source", *PIXELS, *OBJECTS, "true_objects", "predicted_objects"]
ROWS_SHOWN = 60
NO_LABELS = "no image has labels to score on"


def run(stage: Evaluate) -> Result:
    """Score every image that has label images; its instances only where the truth holds instances."""
    images, truth = ImageReader(stage.images), LabelReader(stage.truth)
    if not len(truth):
        write_scores(stage.scores, Tally(), [])
        result = Page("evaluate")
        result.text(f"Skipped: {NO_LABELS}.")
        return Result(skipped=NO_LABELS, page=result)
    segmentor, config = load_segmentor(stage.model)
    where = device()
    sharpen = config.sharpen if stage.sharpen == "auto" else stage.sharpen
    total, rows, extremes = Tally(), [], Extremes()
    keys = spread(truth.keys(), stage.most_images or len(truth))

    def predicted() -> Iterator[Predicted]:
        for key in keys:
            image, true = read_pair(stage, images, truth, key)
            maps = predict_maps(segmentor, config, image, tile=stage.tile, batch_size=stage.batch_size, device=where)
            yield Predicted(key, image, true, maps)

    def scored(one: Predicted) -> tuple[Predicted, np.ndarray, Tally]:
        found = find(one.maps, one.image, threshold=stage.threshold, sharpen=sharpen).cells(
            stage.saddle or config.saddle,
            min_distance=stage.min_distance,
            min_area=stage.min_area,
            min_share=stage.min_share,
        )
        known = scored_part(truth, one.key)
        instances = truth.entries[one.key].kind == "instances"
        return one, found, tally(one.true * known, found * known, instances=instances)

    with ThreadPoolExecutor(threads()) as pool:  # while cells are parted in one image, the network sees the next
        each = in_order(pool, scored, predicted(), lambda one: 4 * one.maps.nbytes)
        for one, found, score in track(each, "evaluate", len(keys)):
            total = total + score
            row = score_row(one.key, images.entries[one.key].source, score)
            rows.append(row)
            extremes.add(score_of(row), row["source"], partial(panel, one.image, one.true, found))
    write_scores(stage.scores, total, rows)
    metrics = total.metrics() | {"images": float(total.images)}
    return Result(metrics=metrics, page=page(metrics, total, rows, extremes))


@dataclass
class Predicted:
    """What the network said of an image."""

    key: str
    image: np.ndarray
    true: np.ndarray
    """(H, W) label image"""
    maps: np.ndarray
    """(M, H, W) float32"""


def read_pair(stage: Evaluate, images: ImageReader, truth: LabelReader, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, C) and its true label image (H, W). Raises ArtifactError where they do not belong together."""
    if key not in images.entries:
        raise ArtifactError(
            f"{stage.truth}: labels of {key!r}, which is no image of {stage.images}; give both of one ingest"
        )
    image, mask = images.read(key), truth.mask(key)
    if image.shape[:2] != mask.shape:
        raise ArtifactError(f"{stage.truth}: the labels of {key!r} are {mask.shape}, the image {image.shape[:2]}")
    return image, mask


def scored_part(truth: LabelReader, key: str) -> np.ndarray:
    """(H, W) bool: where the truth is known. Pixels of confidence 0 count on neither side."""
    entry = truth.entries[key]
    if "conf" not in entry.members:
        return np.ones((entry.height, entry.width), bool)
    return truth.conf(key) > 0


def score_row(key: str, source: str, one: Tally) -> dict[str, Any]:
    """One line of `scores.csv`; what the truth cannot tell is left out."""
    row = {"image": key, "source": source, **one.metrics()}
    if one.instance_images:
        row |= {"true_objects": one.true, "predicted_objects": one.predicted}
    return row


def score_of(row: dict[str, Any]) -> float:
    """What images are ranked by: F1 where instances are known, else Dice."""
    return float(row.get("f1", row["dice"]))


def write_scores(folder: Path, total: Tally, rows: list[dict[str, Any]]) -> None:
    """`scores.json`: what holds over all images; `scores.csv`: a line for each, six significant digits."""
    overall = total.metrics() if total.images else {}
    counts = {"n": total.images, "true_objects": total.true, "predicted_objects": total.predicted}
    text = json.dumps({"overall": overall, **counts}, indent=1, sort_keys=True)
    (folder / "scores.json").write_text(text + "\n", encoding="utf-8")
    with (folder / "scores.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in row.items()})


def page(metrics: dict[str, float], total: Tally, rows: list[dict[str, Any]], extremes: Extremes) -> Page:
    """Overall numbers, the best and worst images, and a line for each image."""
    result = Page("evaluate")
    of = f"{total.true} true and {total.predicted} predicted objects" if total.instance_images else "foreground only"
    result.text(f"{total.images} labelled images, {of}.")
    names = [name for name in (*PIXELS, *OBJECTS) if name in metrics]
    result.table(names, [[metrics[name] for name in names]])
    result.text(
        "Counts are pooled over the images; aji is the mean over images, seg over true objects. "
        "f1, precision, recall and pq at IoU 0.5; map is the mean of ap over IoU 0.5 to 0.9."
    )
    for title, panels in (("Worst", extremes.worst()), ("Best", extremes.best())):
        if panels:
            result.heading(f"{title}: input, truth (green), prediction (yellow)")
            result.images([(picture, f"{source}: {score:.3f}") for score, source, picture in panels], width=640)
    result.heading("Images")
    ranked = sorted(rows, key=lambda row: (score_of(row), row["image"]))[:ROWS_SHOWN]
    header = ["source", *names]
    result.table(header, [[row.get(name, "") for name in header] for row in ranked])
    if len(rows) > len(ranked):
        result.text(f"The {len(ranked)} worst of {len(rows)}; scores.csv lists all.")
    return result
