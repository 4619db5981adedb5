"""From unlabelled images to a segmentor, its predictions and its ONNX file; labels, if there are any, only score it.

Compile-time settings: `rounds`, and any field of a stage or task. Run-time parameters: those of `label_free` below.
"""

from typing import Any

from kfp import dsl

from components.cluster.component import Cluster
from components.evaluate.component import Evaluate
from components.export_model.component import ExportModel
from components.infer.component import Infer
from components.ingest.component import Ingest
from components.pretrain.component import Pretrain
from components.sample_images.component import SampleImages
from components.select_model.component import SelectModel
from components.train_segmentor.component import TrainSegmentor
from pipelines.config import Config
from pipelines.graphs.em import EM, em_rounds, run_rounds
from pipelines.kubeflow.adapter import step


def build(config: Config) -> Any:
    """Build the pipeline with the settings of `config` fixed in it."""

    def label_free(
        source: str,
        fingerprint: str = "",
        seed: int = config.default(Pretrain, "seed"),
        pretrain_steps: int = config.default(Pretrain, "steps"),
        train_steps: int = config.default(TrainSegmentor, "steps", EM),
        k: str = config.default(Cluster, "k", EM),
        foreground: str = config.default(Cluster, "foreground", EM),
        use_labels: int = config.default(Cluster, "use_labels", EM),
        stop_agreement: float = config.default(SelectModel, "stop_agreement", EM),
    ) -> None:
        data = step(config, Ingest, source=source, fingerprint=fingerprint, defaults={"magnify": "auto"})
        images, truth = data.outputs["images"], data.outputs["labels"]
        encoder = step(config, Pretrain, images=images, steps=pretrain_steps, seed=seed).outputs["encoder"]
        settings = {"k": k, "foreground": foreground, "use_labels": use_labels, "train_steps": train_steps}
        given = {"images": images, "truth": truth, "model": encoder, "use_labels": use_labels}
        chosen = step(config, SampleImages, **given)
        settings |= {"stop_agreement": stop_agreement, "seed": seed}
        best = run_rounds(rounds, chosen, data.outputs["no_labels"], encoder, **settings).best
        found = step(config, Infer, images=images, segmentor=best)
        step(config, ExportModel, images=chosen.outputs["sample"], truth=chosen.outputs["labels"], model=best)
        scored = {"images": images, "truth": truth, "predictions": found.outputs["predictions"]}
        step(config, Evaluate, name="evaluate-predictions", **scored, use_labels=use_labels)

    rounds = em_rounds(config)  # after the defaults above, which tell the config what the run-time parameters feed
    return dsl.pipeline(name="label-free", description=(__doc__ or "").splitlines()[0])(label_free)
