"""From images with label images to a segmentor of instances, its ONNX file, and predictions.

Compile-time settings: any field of a stage or task. Run-time parameters: those of `instances` below. Images without
labels are pretrained on.
"""

from typing import Any

from kfp import dsl

from components.evaluate.component import Evaluate
from components.export_model.component import ExportModel
from components.infer.component import Infer
from components.ingest.component import Ingest
from components.pretrain.component import Pretrain
from components.train_segmentor.component import TrainSegmentor
from pipelines.config import Config
from pipelines.kubeflow.adapter import step

STEPS = 1000
"""Optimiser steps for each kind of images: labels by hand teach for longer than pseudo-masks, which hold errors."""
SUPERVISED = {"target": "flow"}
"""Settings for labels by hand, unless they are set (RESULTS.md, "Instances")."""


def build(config: Config) -> Any:
    """Build the pipeline with the settings of `config` fixed in it."""

    def instances(
        source: str,
        fingerprint: str = "",
        seed: int = config.default(Pretrain, "seed"),
        pretrain_steps: int = config.default(Pretrain, "steps"),
        train_steps: int = config.default(TrainSegmentor, "steps", otherwise=STEPS),
    ) -> None:
        data = step(config, Ingest, source=source, fingerprint=fingerprint, defaults={"magnify": "auto"})
        images, truth = data.outputs["images"], data.outputs["labels"]
        encoder = step(config, Pretrain, images=images, steps=pretrain_steps, seed=seed).outputs["encoder"]
        learned: dict[str, Any] = {"images": images, "labels": truth, "model": encoder}
        schedule: dict[str, Any] = {"steps": train_steps, "seed": seed}
        model = step(config, TrainSegmentor, **learned, **schedule, defaults=SUPERVISED).outputs["segmentor"]
        step(config, Evaluate, images=images, truth=truth, model=model)
        exported = step(config, ExportModel, images=images, truth=truth, model=model)
        step(config, Infer, images=images, segmentor=exported.outputs["exported"])

    return dsl.pipeline(name="instances", description=(__doc__ or "").splitlines()[0])(instances)
