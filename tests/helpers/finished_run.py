"""A finished run of two rounds, made from artifacts of real images as the stages write them."""

from pathlib import Path

import numpy as np

from pipelines.run_folder.record import InputRecord, OutputRecord, RunRecord, TaskRecord
from shared.artifacts.image_set import ImageWriter
from shared.artifacts.kinds import ImageSet, LabelSet
from shared.artifacts.label_set import LabelWriter
from shared.artifacts.manifest import seal
from shared.reporting.page import Page

ORDER = ("extract-features", "cluster", "refine-masks", "train-segmentor", "evaluate")
Masks = dict[str, np.ndarray]


def finished_run(run: Path, nuclei: np.ndarray) -> RunRecord:
    """A run of two rounds on two crops of an image (512, 512, C), one of them labelled; saved at `run`."""
    crops = {"a": nuclei[:256, :256], "b": nuclei[256:, 256:]}
    masks = {key: (crop[..., 0] > np.percentile(crop, 85)).astype(np.uint8) for key, crop in crops.items()}
    tasks = {"ingest": _ingested(run, crops, masks), "pretrain": _pretrained(run)}
    last = "pretrain"
    for number in range(2):
        tasks |= _round(run, number, last, masks, tasks["ingest"].outputs["images"].digest)
        last = f"em-{number}/train-segmentor"
    tasks["infer"] = TaskRecord(
        stage="infer",
        state="done",
        origin="computed",
        after=sorted(["ingest", last]),
        inputs={"segmentor": InputRecord(task=last, output="segmentor", digest="model of round 1")},
        outputs={"predictions": labelled(run, "infer/predictions", "prediction", masks, "instances")},
        metrics={"images": 2, "cells": 12},
    )
    record = RunRecord(
        pipeline="label-free", state="done", started=1.7e9, seconds=61.5, tasks=tasks, command=["cytoloom"]
    )
    record.save(run)
    return record


def labelled(run: Path, path: str, origin, masks: Masks, kind, **written) -> OutputRecord:
    """Write a sealed LabelSet. written: notes; conf and others are made from the masks where they are true."""
    with LabelWriter(run / path, origin, written.get("notes")) as labels:
        for key, mask in masks.items():
            conf = mask * 200 if written.get("conf") else None
            others = {"cluster": mask + 1} if written.get("others") else None
            labels.add(key, mask, kind, conf, others)
    return OutputRecord(path=path, kind="LabelSet", digest=seal(run / path, LabelSet).digest)


def _ingested(run: Path, crops: Masks, masks: Masks) -> TaskRecord:
    with ImageWriter(run / "ingest/images") as writer:
        for key, crop in crops.items():
            writer.add(key, crop, source=f"{key}.tif", split="test" if key == "b" else "train")
    (run / "ingest/images/rejects.csv").write_text('source,reason\nbad.tif,"no image, <text>"\n')
    page = Page("ingest")
    page.text("6 files.")
    page.save(run / "ingest/report.html")
    digest = seal(run / "ingest/images", ImageSet).digest
    outputs = {
        "images": OutputRecord(path="ingest/images", kind="ImageSet", digest=digest),
        "labels": labelled(run, "ingest/labels", "truth", {"b": masks["b"]}, "instances"),
        "no_labels": labelled(run, "ingest/no_labels", "truth", {}, "instances"),
        "report": OutputRecord(path="ingest/report.html", kind="system.HTML", digest="0123456789abcdef"),
    }
    return TaskRecord(
        stage="ingest",
        state="done",
        origin="run folder",
        seconds=2,
        parameters={"source": "/data"},
        outputs=outputs,
        metrics={"images": 2, "rejects": 1},
        remark="One folder & labels.",
        rerun="python -m components ingest --source '/data'",
    )


def _pretrained(run: Path) -> TaskRecord:
    page = Page("pretrain")
    page.plot("loss of pretrain", {"mae": [(0, 1), (1, 0.5)]})
    (run / "pretrain").mkdir(parents=True)
    page.save(run / "pretrain/report.html")
    return TaskRecord(stage="pretrain", state="done", origin="computed", seconds=20, after=["ingest"])


def _round(run: Path, number: int, before: str, masks: Masks, images: str) -> dict[str, TaskRecord]:
    group, tasks = f"em-{number}", {}
    for name in ORDER:
        task = TaskRecord(stage=name.replace("-", "_"), state="done", origin="computed", seconds=3)
        task.after = sorted(["ingest", before])
        tasks[f"{group}/{name}"] = task
        before = f"{group}/{name}"
    learned = {"a": masks["a"]}
    clusters = labelled(run, f"{group}/cluster/clusters", "pseudo", learned, "foreground", conf=True, others=True)
    refined = labelled(run, f"{group}/refine-masks/labels", "pseudo", learned, "foreground", conf=True)
    tasks[f"{group}/cluster"].outputs["clusters"] = clusters
    tasks[f"{group}/cluster"].inputs["images"] = InputRecord(task="ingest", output="images", digest=images)
    tasks[f"{group}/refine-masks"].outputs["labels"] = refined
    tasks[f"{group}/refine-masks"].values["agreement"] = 0.75 * number
    tasks[f"{group}/refine-masks"].metrics = {"agreement": 0.75} if number else {}
    tasks[f"{group}/train-segmentor"].outputs["segmentor"] = OutputRecord(
        path=f"{group}/train-segmentor/segmentor", kind="Model", digest=f"model of round {number}"
    )
    tasks[f"{group}/evaluate"].metrics = {"dice": 0.5 + 0.25 * number, "f1": 0.4 + 0.2 * number}
    return tasks
