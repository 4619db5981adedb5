"""`evaluate`: predict the labelled images, or read what was predicted, and compare with what is known of them."""

import csv
import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from components.evaluate.component import Evaluate
from components.evaluate.extremes import Extremes, panel
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import spread
from shared.artifacts.label_set import LabelReader, learned_labels
from shared.instances.postprocess import find
from shared.metrics.instances import Tally, tally
from shared.metrics.pixels import Pixels, count_pixels
from shared.readers.decode.limits import Limits
from shared.readers.label_images import read_mask
from shared.reporting.page import Page
from shared.stage.declaration import Result
from shared.system.devices import device, threads
from shared.system.errors import ArtifactError, ImageError, UserError
from shared.system.parallel import in_order
from shared.system.progress import track

Find = Callable[["Case"], Callable[[], "Found"]]
"""What predicts. It is called for one image after another; what it returns, in any thread, makes the cells."""
PIXELS = ["dice", "iou"]
OBJECTS = ["precision", "recall", "f1", "ap50", "ap75", "map", "pq", "aji", "seg", "det"]
COLUMNS = ["image", "source", *PIXELS, *OBJECTS, "true_objects", "predicted_objects"]
ROWS_SHOWN = 60
HELD = 40
"""Bytes for each px of an image while it is worked on, about."""
NO_LABELS = "no image has labels to score on"


def run(stage: Evaluate) -> Result:
    """Score the images that have label images; their instances only where the truth holds instances."""
    if (stage.model is None) == (stage.predictions is None):
        raise UserError("--model, --predictions: exactly one of them says what is to be scored")
    images, truth = ImageReader(stage.images), LabelReader(stage.truth)
    if not len(truth):
        write_scores(stage.scores, Tally(), [])
        result = Page("evaluate")
        result.text(f"Skipped: {NO_LABELS}.")
        return Result(skipped=NO_LABELS, page=result)
    total, pixels, rows, extremes = Tally(), Pixels(), [], Extremes()
    labelled, flattering, said = scorable(truth, images, stage.use_labels)
    keys = spread(labelled, stage.most_images or len(truth))
    if stage.model is not None:
        find_cells = by_model(stage, stage.model)
    else:
        assert stage.predictions is not None
        find_cells = as_predicted(stage.predictions)

    def cases() -> Iterator[tuple[Case, Callable[[], Found]]]:
        for key in keys:
            case = Case(key, *read_pair(stage, images, truth, key))
            yield case, find_cells(case)

    def scored(item: tuple[Case, Callable[[], Found]]) -> tuple[Case, np.ndarray, Tally, Pixels]:
        case, found = item[0], item[1]()
        known = scored_part(truth, case.key)
        instances = truth.entries[case.key].kind == "instances"
        score = tally(case.true * known, found.cells * known, instances=instances)
        return case, found.cells, score, count_pixels(case.true, found.cells, known, found.probability)

    with ThreadPoolExecutor(threads()) as pool:  # while cells are parted in one image, the network sees the next
        each = in_order(pool, scored, cases(), lambda item: HELD * item[0].true.size)
        for case, cells, score, counted in track(each, "evaluate", len(keys)):
            total, pixels = total + score, pixels + counted
            row = score_row(case.key, images.entries[case.key].source, score)
            rows.append(row)
            extremes.add(score_of(row), row["source"], partial(panel, case.image, case.true, cells))
    write_scores(stage.scores, total, rows, flattering)
    metrics = total.metrics() | {"images": float(total.images)} | ({"flattering": 1.0} if flattering else {})
    result = page(metrics, total, pixels, rows, extremes, said)
    return Result(metrics=metrics, classification=pixels.classification(), page=result)


def scorable(truth: LabelReader, images: ImageReader, use_labels: int) -> tuple[list[str], bool, str]:
    """Keys of the labelled images that were not learned from; where there are none, of those that were.

    Then whether scores on them flatter, and what is to be said of them.
    """
    learned = set(learned_labels(truth, set(images.keys("train")), use_labels))
    others = sorted(set(truth.entries) - learned)
    if others:
        left_out = f"{len(learned)} more are left out: the model learned from their labels."
        return others, False, left_out if learned else ""
    return (
        truth.keys(),
        True,
        "These are the images that were drawn for the model to learn from: the scores flatter it.",
    )


@dataclass
class Case:
    """An image and the truth."""

    key: str
    image: np.ndarray
    """(H, W, C)"""
    true: np.ndarray
    """(H, W) label image"""


@dataclass
class Found:
    """What was predicted of an image."""

    cells: np.ndarray
    """(H, W) label image"""
    probability: np.ndarray | None = None
    """(H, W) float32 in [0, 1], of the foreground, where it is known."""


def by_model(stage: Evaluate, model: Path) -> Find:
    """Cells as the segmentor finds them."""
    from shared.models.segmentor import for_prediction, load_segmentor
    from shared.models.tiled_inference import predict_maps

    segmentor, config = load_segmentor(model)
    where = device()
    segmentor = for_prediction(segmentor, where)
    sharpen = config.sharpen if stage.sharpen == "auto" else stage.sharpen

    def cells(maps: np.ndarray, image: np.ndarray) -> np.ndarray:
        found = find(maps, image, threshold=stage.threshold, sure=stage.sure or config.sure, sharpen=sharpen)
        return found.cells(
            stage.saddle or config.saddle,
            min_distance=stage.min_distance,
            min_area=stage.min_area,
            min_share=stage.min_share,
            min_depth=stage.min_depth,
        )

    def find_cells(case: Case) -> Callable[[], Found]:
        maps = predict_maps(segmentor, config, case.image, tile=stage.tile, batch_size=stage.batch_size, device=where)
        probability = maps[0].copy()
        return lambda: Found(cells(maps, case.image), probability)

    return find_cells


def as_predicted(predictions: Path) -> Find:
    """Cells as they were written, `labels/KEY.tif`. Raises ArtifactError where there is none, or not of that image."""

    def find_cells(case: Case) -> Callable[[], Found]:
        return lambda: Found(predicted_cells(predictions / "labels" / f"{case.key}.tif", case))

    return find_cells


def predicted_cells(path: Path, case: Case) -> np.ndarray:
    """The label image (H, W) at `path`."""
    if not path.is_file():
        raise ArtifactError(f"--predictions: {path}: missing; give what was predicted of these images")
    try:
        return read_mask(path, 0, 1, (case.true.shape[0], case.true.shape[1]), Limits(1, math.inf))[0]
    except ImageError as error:
        raise ArtifactError(f"--predictions: {path}: {error}") from error


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


def write_scores(folder: Path, total: Tally, rows: list[dict[str, Any]], flattering: bool = False) -> None:
    """`scores.json`: what holds over all images; `scores.csv`: a line for each, six significant digits.

    flattering: the images were learned from with their labels, and scores.json says so.
    """
    overall = total.metrics() if total.images else {}
    counts = {"n": total.images, "true_objects": total.true, "predicted_objects": total.predicted}
    flag = {"flattering": True} if flattering else {}
    text = json.dumps({"overall": overall, **counts, **flag}, indent=1, sort_keys=True)
    (folder / "scores.json").write_text(text + "\n", encoding="utf-8")
    with (folder / "scores.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in row.items()})


def page(
    metrics: dict[str, float],
    total: Tally,
    pixels: Pixels,
    rows: list[dict[str, Any]],
    extremes: Extremes,
    said: str,
) -> Page:
    """Overall numbers, the best and worst images, and a line for each image; `said` of which images these are."""
    result = Page("evaluate")
    of = f"{total.true} true and {total.predicted} predicted objects" if total.instance_images else "foreground only"
    result.text(f"{total.images} labelled images, {of}. {said}".rstrip())
    names = [name for name in (*PIXELS, *OBJECTS) if name in metrics]
    result.table(names, [[metrics[name] for name in names]])
    result.text(
        "Counts are pooled over the images; aji is the mean over images, seg over true objects. "
        "f1, precision, recall and pq at IoU 0.5; map is the mean of ap over IoU 0.5 to 0.9."
    )
    result.heading("Pixels")
    header = ["", "found to be background", "found to be cell"]
    result.table(header, [[f"truly {label}", *row] for label, row in pixels.rows()])
    result.text("Pixels of all images together; those of which the truth is not known are left out.")
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
