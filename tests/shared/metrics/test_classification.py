"""A confusion matrix and a ROC curve as kfp's own class has them."""

import pytest
from kfp import dsl
from pydantic import ValidationError
from sklearn.metrics import confusion_matrix, roc_curve

from shared.metrics.classification import Classification

LABELS = ["background", "border", "cell"]
TRUE, FOUND = [0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 2, 0]
PROBABILITIES = [0.1, 0.4, 0.35, 0.8, 0.9, 0.2]


def test_metadata_is_what_kfp_itself_logs():
    matrix = confusion_matrix(TRUE, FOUND).tolist()
    rates = [
        values[1:].tolist()
        for values in roc_curve([label > 0 for label in TRUE], PROBABILITIES, drop_intermediate=False)
    ]
    theirs = dsl.ClassificationMetrics()
    theirs.log_confusion_matrix(LABELS, matrix)
    alone = Classification(labels=LABELS, confusion=matrix)
    assert alone.metadata() == theirs.metadata and set(theirs.metadata) == {"confusionMatrix"}
    theirs.log_roc_curve(*rates)
    both = Classification(labels=LABELS, confusion=matrix, roc=list(zip(*rates, strict=True)))
    assert both.metadata() == theirs.metadata and len(theirs.metadata["confidenceMetrics"]) > 3
    assert Classification.model_validate_json(both.model_dump_json()) == both


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"confusion": [[1, 2]]}, "a row and a column for each"),
        ({"confusion": [[1, 2], [3]]}, "a row and a column for each"),
        ({"labels": ["cell", "cell"]}, "no label twice"),
        ({"confusion": [[1, 2], [3, float("nan")]]}, "finite"),
        ({"roc": [(0, 0, float("inf"))]}, "finite"),
        ({"roc": [(0, 1.5, 0.5)]}, "less than or equal to 1"),
        ({"auc": 0.9}, "not permitted"),
    ],
)
def test_what_kubeflow_could_not_draw_is_refused(wrong, message):
    fine = {"labels": ["background", "cell"], "confusion": [[1, 2], [3, 4]]}
    assert Classification(**fine).roc == []
    with pytest.raises(ValidationError, match=message):
        Classification(**fine | wrong)
