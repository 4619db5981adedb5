"""From images with boxes to a detector of their classes, its ONNX file, and predictions.

Compile-time settings: any field of a stage or task. Run-time parameters: those of `detector` below. With
`train_detector.unlabelled_weight` above 0, images of the set without boxes are learned from as well.
"""

from typing import Any

from kfp import dsl

from components.evaluate.component import Evaluate
from components.export_model.component import ExportModel
from components.infer.component import Infer
from components.ingest.component import Ingest
from components.pretrain.component import Pretrain
from components.train_detector.component import TrainDetector
from pipelines.config import Config
from pipelines.kubeflow.adapter import step

SUPERVISED = {"unlabelled_weight": 0.0}
"""Training on boxes alone, unless the setting is another."""


def build(config: Config) -> Any:
    """Build the pipeline with the settings of `config` fixed in it."""

    def detector(
        source: str,
        fingerprint: str = "",
        seed: int = config.default(Pretrain, "seed"),
        pretrain_steps: int = config.default(Pretrain, "steps"),
        train_steps: int = config.default(TrainDetector, "steps"),
    ) -> None:
        data = step(config, Ingest, source=source, fingerprint=fingerprint)
        images, truth = data.outputs["images"], data.outputs["labels"]
        encoder = step(config, Pretrain, images=images, steps=pretrain_steps, seed=seed).outputs["encoder"]
        learned: dict[str, Any] = {"images": images, "truth": truth, "unlabelled": images}
        schedule: dict[str, Any] = {"steps": train_steps, "seed": seed}
        trained = step(config, TrainDetector, **learned, encoder=encoder, **schedule, defaults=SUPERVISED)
        model = trained.outputs["detector"]
        step(config, Evaluate, images=images, truth=truth, model=model)
        exported = step(config, ExportModel, images=images, truth=truth, model=model)
        step(config, Infer, images=images, detector=exported.outputs["exported"])

    return dsl.pipeline(name="detector", description=(__doc__ or "").splitlines()[0])(detector)
