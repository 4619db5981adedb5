"""Hold a confusion matrix and a ROC curve in the form that Kubeflow's UI draws.

Every declaration imports this module, so it loads no numpy.
"""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

Rate = Annotated[float, Field(ge=0, le=1)]


class Classification(BaseModel):
    """Content of an output `ClassificationMetrics`: its file as JSON, and what Kubeflow's UI draws."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    labels: list[str]
    """Names of the classes, each once."""
    confusion: list[list[FiniteFloat]]
    """Counts or shares: a row for each true class, a column for each predicted one, both in the order of `labels`."""
    roc: list[tuple[Rate, Rate, FiniteFloat]] = []
    """Points of the ROC curve: false positive rate, true positive rate, threshold. Empty where none is known."""

    @model_validator(mode="after")
    def _square(self) -> Self:
        lengths = {len(self.labels), len(set(self.labels)), len(self.confusion), *map(len, self.confusion)}
        if len(lengths) > 1:
            raise ValueError("a confusion matrix has a row and a column for each of its labels, and no label twice")
        return self

    def metadata(self) -> dict[str, Any]:
        """Metadata of the artifact in Kubeflow, equal to what kfp's `dsl.ClassificationMetrics` logs."""
        matrix = {
            "annotationSpecs": [{"displayName": label} for label in self.labels],
            "rows": [{"row": row} for row in self.confusion],
        }
        curve = [
            {"confidenceThreshold": threshold, "recall": true_rate, "falsePositiveRate": false_rate}
            for false_rate, true_rate, threshold in self.roc
        ]
        return {"confusionMatrix": matrix} | ({"confidenceMetrics": curve} if curve else {})
