from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field, PositiveInt, ValidationError
from pydantic.fields import FieldInfo

from shared.artifacts.kinds import ClassificationMetrics, FeatureSet, ImageSet, Model
from shared.stage.declaration import External, In, MaybeIn, Out, Result, Stage, is_external
from shared.stage.wire import plain_type


class TwoWords(Stage):
    """A stage."""

    image: ClassVar[str] = "torch"

    images: In[ImageSet]
    """Images."""
    model: In[Model]
    """A model."""
    features: Out[FeatureSet]
    """Features."""
    share: Out[float]
    """An output parameter."""
    source: Annotated[str, External]
    """A path."""
    count: PositiveInt = 3
    """A number."""
    mode: Literal["a", "b"] = "a"
    """A choice."""
    sides: tuple[int, int] = (1, 2)
    """A pair."""
    table: dict[str, float] = Field(default={})
    """A table."""


class Either(TwoWords):
    """One input may be left out."""

    more: MaybeIn[Model]
    """Another model."""


def made(**values: object) -> TwoWords:
    return TwoWords(**{"images": "i", "model": "m", "features": "f", "source": "s", **values})


def test_names_and_ports():
    assert TwoWords.slug() == "two_words"
    assert list(TwoWords.ports("in")) == ["images", "model"]
    assert list(TwoWords.ports("out")) == ["report", "metrics", "features", "share"]
    assert list(TwoWords.parameters()) == ["source", "count", "mode", "sides", "table"]
    ports = TwoWords.ports()
    assert [name for name in ports if ports[name].is_artifact] == ["images", "model", "features"]
    assert [name for name in ports if ports[name].is_value] == ["share"]


def test_an_input_that_may_be_left_out_is_none_then():
    given = {"images": "i", "model": "m", "features": "f", "source": "s"}
    assert Either(**given).more is None
    assert Either(**given, more="there").more == Path("there")
    port = Either.ports("in")["more"]
    assert port.is_artifact and not port.needed and Either.ports()["model"].needed


def test_docstrings_beneath_the_fields_are_their_descriptions():
    assert TwoWords.model_fields["count"].description == "A number."
    assert TwoWords.model_fields["features"].description == "Features."


def test_wire_types():
    wires = {name: plain_type(field) for name, field in TwoWords.parameters().items()}
    assert wires == {"source": str, "count": int, "mode": str, "sides": list, "table": dict}
    assert plain_type(FieldInfo.from_annotation(bool)) is bool
    assert plain_type(FieldInfo.from_annotation(Annotated[float, Field(gt=0)])) is float
    assert plain_type(FieldInfo.from_annotation(Literal[1, 2])) is int


@pytest.mark.parametrize("kind", [int | None, str | int, object, set[int]])
def test_types_that_kubeflow_cannot_carry_are_refused(kind):
    with pytest.raises(TypeError):
        plain_type(FieldInfo.from_annotation(kind))


def test_external_paths_are_marked():
    assert [name for name, field in TwoWords.parameters().items() if is_external(field)] == ["source"]


def test_values_are_checked_and_kept():
    stage = made(count="7", mode="b", sides=[3, 4])
    assert (stage.count, stage.mode, stage.sides, stage.images) == (7, "b", (3, 4), Path("i"))
    assert stage.parameter_values() == {"source": "s", "count": 7, "mode": "b", "sides": [3, 4], "table": {}}
    assert stage.report is None and stage.share is None


@pytest.mark.parametrize(
    "wrong", [{"count": 0}, {"mode": "c"}, {"sides": [1]}, {"cuont": 3}, {"table": {"a": "b"}}, {"features": None}]
)
def test_wrong_values_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        made(**wrong)


def test_a_declaration_cannot_be_changed_afterwards():
    with pytest.raises(ValidationError, match="frozen"):
        made().count = 4


def test_a_result_refuses_what_it_does_not_know():
    assert Result(metrics={"a": 1}, values={"done": True, "n": 3}).values == {"done": True, "n": 3}
    with pytest.raises(ValidationError):
        Result(metric={"a": 1})


def test_a_confusion_matrix_is_no_artifact_and_may_be_left_out():
    class Telling(TwoWords):
        curve: Out[ClassificationMetrics]

    port = Telling.ports("out")["curve"]
    assert not port.is_artifact and not port.is_value and not port.needed
    given = {"images": "i", "model": "m", "features": "f", "source": "s"}
    assert Telling(**given).curve is None and Telling(**given, curve="c.json").curve == Path("c.json")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_metrics_are_finite(value):
    """JSON knows neither, and Kubeflow refuses the file."""
    with pytest.raises(ValidationError, match="finite"):
        Result(metrics={"loss": value})
