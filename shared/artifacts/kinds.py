"""Kinds of artifacts: what a declaration calls its inputs and outputs.

Every declaration imports this module, so it loads no numpy.
"""

from typing import ClassVar


class Artifact:
    """A kind of artifact. Subclasses are only names for the declarations and for Kubeflow."""

    kfp_type: ClassVar[str] = "Artifact"


class ImageSet(Artifact):
    """Images in tar shards with an index; read with `shared.artifacts.image_set.ImageReader`."""

    kfp_type = "Dataset"


class LabelSet(Artifact):
    """What is known or believed about the images of one ImageSet; read with `shared.artifacts.label_set.LabelReader`."""

    kfp_type = "Dataset"


class FeatureSet(Artifact):
    """Dense features of images; read with `shared.artifacts.feature_set.FeatureReader`."""

    kfp_type = "Dataset"


class Model(Artifact):
    """`model.safetensors`, `config.json` (its `kind` says encoder, segmentor, ...) and `MODEL_CARD.md`."""

    kfp_type = "Model"


class Scores(Artifact):
    """`scores.json` (overall) and `scores.csv` (per image)."""


class Files(Artifact):
    """Plain files for people and other programs: label TIFF, COCO JSON, CSV of cells, overlays."""


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
