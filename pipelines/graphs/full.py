"""From a bucket of images to a segmentor, a detector and a classifier, exported, and predictions that join them.

The segmentor needs no labels. The detector learns from boxes or, without any, from the pseudo-masks of the last EM
round; the classifier from the classes of the images, and there is none without them.

Compile-time settings: `rounds`, and any field of a stage or task. Run-time parameters: those of `full` below.
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
from components.train_classifier.component import TrainClassifier
from components.train_detector.component import TrainDetector
from components.train_segmentor.component import TrainSegmentor
from pipelines.config import Config
from pipelines.graphs.detector import SUPERVISED
from pipelines.graphs.em import EM, em_rounds, run_rounds
from pipelines.kubeflow.adapter import step


def build(config: Config) -> Any:
    """Build the pipeline with the settings of `config` fixed in it."""

    def full(
        source: str,
        fingerprint: str = "",
        seed: int = config.default(Pretrain, "seed"),
        pretrain_steps: int = config.default(Pretrain, "steps"),
        train_steps: int = config.default(TrainSegmentor, "steps", EM),
        classifier_steps: int = config.default(TrainClassifier, "steps"),
        detector_steps: int = config.default(TrainDetector, "steps"),
        k: str = config.default(Cluster, "k", EM),
        foreground: str = config.default(Cluster, "foreground", EM),
        use_labels: int = config.default(Cluster, "use_labels", EM),
        stop_agreement: float = config.default(SelectModel, "stop_agreement", EM),
    ) -> None:
        data = step(config, Ingest, source=source, fingerprint=fingerprint)
        images, truth = data.outputs["images"], data.outputs["labels"]
        encoder = step(config, Pretrain, images=images, steps=pretrain_steps, seed=seed).outputs["encoder"]
        settings = {"k": k, "foreground": foreground, "use_labels": use_labels, "train_steps": train_steps}
        given = {"images": images, "truth": truth}
        chosen = step(config, SampleImages, **given, model=encoder, use_labels=use_labels)
        settings |= {"stop_agreement": stop_agreement, "seed": seed}
        after = run_rounds(rounds, chosen, data.outputs["no_labels"], encoder, **settings)
        learned = {"images": images, "truth": truth, "encoder": encoder, "seed": seed, "without_labels": "skip"}
        more = {"pseudo": after.labels, "unlabelled": images, "steps": detector_steps, "defaults": SUPERVISED}
        models = {
            "classifier": step(config, TrainClassifier, **learned, steps=classifier_steps).outputs["classifier"],
            "detector": step(config, TrainDetector, **learned, **more).outputs["detector"],
            "segmentor": after.best,
        }
        sample = {"images": chosen.outputs["sample"], "truth": chosen.outputs["labels"]}
        exported = {}
        for kind, model in models.items():
            step(config, Evaluate, name=f"evaluate-{kind}", **given, model=model, use_labels=use_labels)
            compared = sample if kind == "segmentor" else given
            export = step(config, ExportModel, name=f"export-{kind}", **compared, model=model)
            exported[kind] = export.outputs["exported"]
        step(config, Infer, images=images, **exported)

    rounds = em_rounds(config)  # after the defaults above, which tell the config what the run-time parameters feed
    return dsl.pipeline(name="full", description=(__doc__ or "").splitlines()[0])(full)
