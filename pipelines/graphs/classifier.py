"""From images with classes to a calibrated classifier, its ONNX file, and gated predictions.

Compile-time settings: any field of a stage or task. Run-time parameters: those of `classifier` below.
"""

from typing import Any

from kfp import dsl

from components.evaluate.component import Evaluate
from components.export_model.component import ExportModel
from components.infer.component import Infer
from components.ingest.component import Ingest
from components.pretrain.component import Pretrain
from components.train_classifier.component import TrainClassifier
from pipelines.config import Config
from pipelines.kubeflow.adapter import step


def build(config: Config) -> Any:
    """Build the pipeline with the settings of `config` fixed in it."""

    def classifier(
        source: str,
        fingerprint: str = "",
        seed: int = config.default(Pretrain, "seed"),
        pretrain_steps: int = config.default(Pretrain, "steps"),
        train_steps: int = config.default(TrainClassifier, "steps"),
    ) -> None:
        data = step(config, Ingest, source=source, fingerprint=fingerprint)
        images, truth = data.outputs["images"], data.outputs["labels"]
        encoder = step(config, Pretrain, images=images, steps=pretrain_steps, seed=seed).outputs["encoder"]
        schedule: dict[str, Any] = {"steps": train_steps, "seed": seed}
        trained = step(config, TrainClassifier, images=images, truth=truth, encoder=encoder, **schedule)
        model = trained.outputs["classifier"]
        step(config, Evaluate, images=images, truth=truth, model=model)
        exported = step(config, ExportModel, images=images, truth=truth, model=model)
        step(config, Infer, images=images, classifier=exported.outputs["exported"])

    return dsl.pipeline(name="classifier", description=(__doc__ or "").splitlines()[0])(classifier)
