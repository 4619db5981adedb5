"""Models of earlier runs predict new images; labels, if there are any, score the predictions.

Compile-time settings: any field of a stage or task. Run-time parameters: those of `infer` below; a model is a path or
uri, empty: none.
"""

from typing import Any

from kfp import dsl

from components.evaluate.component import Evaluate
from components.import_model.component import ImportModel
from components.infer.component import Infer
from components.ingest.component import Ingest
from pipelines.config import Config
from pipelines.kubeflow.adapter import step


def build(config: Config) -> Any:
    """Build the pipeline with the settings of `config` fixed in it."""

    def infer(
        source: str, fingerprint: str = "", classifier: str = "", detector: str = "", segmentor: str = ""
    ) -> None:
        data = step(config, Ingest, source=source, fingerprint=fingerprint)
        images, truth = data.outputs["images"], data.outputs["labels"]
        models = {
            kind: step(config, ImportModel, name=f"import-{kind}", source=location, kind=kind).outputs["model"]
            for kind, location in (("classifier", classifier), ("detector", detector), ("segmentor", segmentor))
        }
        found = step(config, Infer, images=images, **models)
        scored = {"images": images, "truth": truth, "predictions": found.outputs["predictions"]}
        step(config, Evaluate, name="evaluate-predictions", **scored)

    return dsl.pipeline(name="infer", description=(__doc__ or "").splitlines()[0])(infer)
