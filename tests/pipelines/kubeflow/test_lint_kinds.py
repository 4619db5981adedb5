"""The linter refuses a connection between two artifact kinds, direct or through a nested pipeline."""

from pathlib import Path

import pytest
from kfp import compiler, dsl

from components.evaluate.component import Evaluate
from components.export_model.component import ExportModel
from components.infer.component import Infer
from components.ingest.component import Ingest
from components.pretrain.component import Pretrain
from pipelines.config import Config
from pipelines.kubeflow.adapter import step
from pipelines.kubeflow.compile import compile_graph
from pipelines.kubeflow.lint import lint
from shared.system.errors import UserError


def kind_findings(tmp_path: Path, build) -> list[str]:
    """Return the findings of the rule artifact-kind in the pipeline of `build(data, encoder)`."""

    @dsl.pipeline(name="probe")
    def pipeline(source: str):
        data = step(Config(), Ingest, source=source)
        encoder = step(Config(), Pretrain, images=data.outputs["images"]).outputs["encoder"]
        build(data, encoder)

    compiler.Compiler().compile(pipeline, str(tmp_path / "probe.yaml"))
    found = lint(tmp_path / "probe.yaml")
    assert {finding.rule for finding in found} <= {"artifact-kind"}
    return [f"{finding.where}: {finding.message}" for finding in found]


@dsl.pipeline(name="predict")
def predict(pictures: dsl.Input[dsl.Dataset], model: dsl.Input[dsl.Model], number: int) -> dsl.Dataset:
    return step(Config(), Infer, images=pictures, segmentor=model).outputs["predictions"]


def right_kinds(data, encoder):
    found = predict(pictures=data.outputs["images"], model=encoder, number=1)
    step(Config(), Evaluate, images=data.outputs["images"], truth=data.outputs["labels"], predictions=found.output)


def wrong_kind(data, encoder):
    step(Config(), Infer, images=data.outputs["labels"], segmentor=encoder)


def wrong_kind_into_nested(data, encoder):
    predict(pictures=data.outputs["labels"], model=encoder, number=1).set_display_name("em-0")


def wrong_kind_out_of_nested(data, encoder):
    found = predict(pictures=data.outputs["images"], model=encoder, number=1)
    step(Config(), ExportModel, images=found.output, model=encoder)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (right_kinds, []),
        (wrong_kind, ["infer: images: needs an ImageSet, ingest.labels is a LabelSet"]),
        (wrong_kind_into_nested, ["em-0/infer: images: needs an ImageSet, ingest.labels is a LabelSet"]),
        (
            wrong_kind_out_of_nested,
            ["export-model: images: needs an ImageSet, predict/infer.predictions is a LabelSet"],
        ),
    ],
)
def test_kinds_of_connected_artifacts_agree_also_through_nested_pipelines(build, expected, tmp_path):
    assert kind_findings(tmp_path, build) == expected


def test_a_graph_that_connects_two_kinds_is_not_compiled(tmp_path):
    def build(config: Config):
        @dsl.pipeline(name="wrong")
        def pipeline(source: str):
            data = step(config, Ingest, source=source)
            step(config, Pretrain, images=data.outputs["labels"])

        return pipeline

    with pytest.raises(UserError, match=r"pretrain: error: images: needs an ImageSet, ingest\.labels is a LabelSet"):
        compile_graph("wrong", build, Config(), tmp_path / "graph.yaml")
    assert not (tmp_path / "graph.yaml").exists()


def test_kinds_are_not_checked_where_the_executor_cannot_read_the_graph(tmp_path):
    def build(data, encoder):
        with dsl.ParallelFor([1, 2]):
            wrong_kind(data, encoder)

    assert kind_findings(tmp_path, build) == []
