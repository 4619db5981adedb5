"""Kinds of artifacts: what a declaration calls its inputs and outputs, and the form of the files of each.

Every declaration imports this module, so it loads no numpy.
"""

from typing import ClassVar

from shared.artifacts.payload import INDEX, PayloadSchema


class Artifact:
    """A kind of artifact: a name for declarations and for Kubeflow, and the form of its payload."""

    kfp_type: ClassVar[str] = "Artifact"
    schema: ClassVar[PayloadSchema] = PayloadSchema()
    """Checked when an artifact of the kind is sealed and when it is verified."""


class ImageSet(Artifact):
    """Images in tar shards with an index; read with `shared.artifacts.image_set.ImageReader`.

    `rejects.csv` lists the files that `ingest` left out.
    """

    kfp_type = "Dataset"
    schema = PayloadSchema(
        required=(INDEX,),
        optional=r"images-\d{5}\.tar|rejects\.csv",
        index_keys=("key", "source", "member", "height", "width", "channels", "dtype", "sha256"),
    )


class LabelSet(Artifact):
    """What is known or predicted about the images of one ImageSet.

    Read with `shared.artifacts.label_set.LabelReader`.
    """

    kfp_type = "Dataset"
    schema = PayloadSchema(
        required=(INDEX, "labelset.json"),
        optional=r"labels-\d{5}\.tar|annotations\.coco\.json|classes\.csv",
        index_keys=("key", "kind", "members", "height", "width"),
        json_keys={"labelset.json": ("origin",)},
    )


class FeatureSet(Artifact):
    """Dense features of images; read with `shared.artifacts.feature_set.FeatureReader`."""

    kfp_type = "Dataset"
    schema = PayloadSchema(
        required=(INDEX,),
        optional=r"features-\d{5}\.npy|probability-\d{5}\.tar",
        index_keys=("key", "shard", "row", "grid", "stride", "height", "width"),
    )


class Model(Artifact):
    """`model.safetensors`, `config.json` (its `kind` says encoder, segmentor, ...) and `MODEL_CARD.md`.

    An exported one also holds `model.onnx`, `model.int8.onnx`, `model.engine`, `export.json` and `speed.json`.
    """

    kfp_type = "Model"
    schema = PayloadSchema(
        required=("config.json", "model.safetensors"),
        optional=r"export\.json|model\.(onnx|int8\.onnx|engine)",
        json_keys={"config.json": ("kind",)},
    )


class Scores(Artifact):
    """`scores.json` (overall) and `scores.csv` (per image)."""

    schema = PayloadSchema(required=("scores.csv", "scores.json"), optional="", json_keys={"scores.json": ("overall",)})


class Files(Artifact):
    """Plain files for people and other programs: label TIFF, COCO JSON, CSV of cells, overlays. Any name will do."""


ARTIFACT_KINDS: dict[str, type[Artifact]] = {
    kind.__name__: kind for kind in (ImageSet, LabelSet, FeatureSet, Model, Scores, Files)
}
"""Name, which is the `type` in `artifact.json`, -> kind."""


class Shown(Artifact):
    """What the pipeline's UI shows of a task, a single file. Not an artifact in the sense of this module.

    It has no manifest and no digest, and no stage reads it.
    """


class Html(Shown):
    """A self-contained page."""

    kfp_type = "HTML"


class Metrics(Shown):
    """Scalars."""

    kfp_type = "Metrics"


class ClassificationMetrics(Shown):
    """A confusion matrix and a ROC curve, `shared.metrics.classification.Classification` as JSON."""

    kfp_type = "ClassificationMetrics"
