"""Declare a stage once: its inputs, outputs and parameters are typed, documented fields of a `Stage` subclass.

The command line and its help, the validation, the Kubeflow component, the keys of a run's config file and the
reference page all derive from these fields. `shared.stage.runner` starts a stage; `run(stage) -> Result` in the
stage's `main.py` computes it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from pydantic.fields import FieldInfo

from shared.artifacts.kinds import Artifact, Html, Metrics, Shown
from shared.metrics.classification import Classification

T = TypeVar("T")


@dataclass(frozen=True)
class Port:
    """Marks a field as an input or output, as opposed to a parameter.

    kind: an `Artifact` subclass; of an output parameter the Python type of its value.
    """

    direction: Literal["in", "out"]
    kind: type
    optional: bool = False
    """Of an input artifact: it may be left out."""

    @property
    def needed(self) -> bool:
        """Whether a path must be given."""
        return self.is_artifact and not self.optional

    @property
    def is_artifact(self) -> bool:
        """Whether it has a manifest and a digest, unlike a page, metrics or an output parameter."""
        return issubclass(self.kind, Artifact) and not issubclass(self.kind, Shown)

    @property
    def is_value(self) -> bool:
        """Whether it is an output parameter: a number, string or truth value in a file of its own."""
        return not issubclass(self.kind, Artifact)


class External:
    """Marks a string parameter as a path or uri that the stage reads itself, such as the source of `ingest`."""


if TYPE_CHECKING:

    class In(Path, Generic[T]):
        """An input artifact: inside `run`, a local folder whose contents are verified."""

    class MaybeIn(Path, Generic[T]):
        """An input artifact that may be left out: None in that case."""

    class Out(Path, Generic[T]):
        """An output artifact: inside `run`, a local folder that exists and is empty."""
else:

    class In:
        """An input artifact: inside `run`, a local folder whose contents are verified."""

        def __class_getitem__(cls, kind: type) -> Any:
            return Annotated[Path, Port("in", kind)]

    class MaybeIn:
        """An input artifact that may be left out: None in that case."""

        def __class_getitem__(cls, kind: type) -> Any:
            return Annotated[Path | None, Port("in", kind, optional=True), Field(default=None)]

    class Out:
        """An output: inside `run`, a local folder that exists and is empty.

        An output parameter (`Out[float]`), a page or metrics are files, which `shared.stage.runner` writes.
        """

        def __class_getitem__(cls, kind: type) -> Any:
            port = Port("out", kind)
            if port.is_artifact:
                return Annotated[Path, port]
            return Annotated[Path | None, port, Field(default=None)]


class Stage(BaseModel):
    """Base of every declaration. Parameters have defaults where possible; artifacts have none."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    image: ClassVar[str]
    """Target in `docker/Dockerfile`."""
    gpu_image: ClassVar[str] = ""
    """Target with the packages that the stage needs on a GPU, where `image` lacks them. Empty: none."""
    headlines: ClassVar[dict[str, str]] = {}
    """Metric -> its name in reports, for the few metrics that tell how good the result is, the most important first."""
    curves: ClassVar[dict[str, str]] = {}
    """Metric -> its name in reports, for metrics that are plotted over the repetitions of a subgraph."""

    report: Out[Html]
    """Page with what the stage did, one self-contained HTML file. Optional by hand."""
    metrics: Out[Metrics]
    """The stage's metrics as JSON, name -> number. Optional by hand."""

    @classmethod
    def slug(cls) -> str:
        """`ExtractFeatures` -> `extract_features`, which is also the stage's folder."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    @classmethod
    def ports(cls, direction: Literal["in", "out"] | None = None) -> dict[str, Port]:
        """Return field name -> port of the inputs, the outputs, or both, in order of declaration."""
        found = ((name, port_of(field)) for name, field in cls.model_fields.items())
        return {name: port for name, port in found if port and direction in (None, port.direction)}

    @classmethod
    def parameters(cls) -> dict[str, FieldInfo]:
        """Return field name -> field of everything that is not a port."""
        return {name: field for name, field in cls.model_fields.items() if port_of(field) is None}

    def max_processes(self) -> int:
        """Return how many processes may share the batches of this stage; see `shared.system.collectives`."""
        return 1

    def parameter_values(self) -> dict[str, Any]:
        """Return parameter name -> value as JSON holds it."""
        return self.model_dump(mode="json", include=set(self.parameters()))


def port_of(field: FieldInfo) -> Port | None:
    """Return the field's port, None for a parameter."""
    return next((item for item in field.metadata if isinstance(item, Port)), None)


def is_external(field: FieldInfo) -> bool:
    """Say whether the field is a path or uri that the stage reads itself."""
    return any(isinstance(item, External) or item is External for item in field.metadata)


class Result(BaseModel):
    """The return value of `run`, beside the files it wrote."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    metrics: dict[str, FiniteFloat] = {}
    """Name -> finite number, shown in the UI and in `report.html`."""
    values: dict[str, float | int | bool | str] = {}
    """Output parameter -> value, for every one that is declared."""
    classification: Classification | None = None
    """Confusion matrix and ROC curve, for a stage that declares an output `Out[ClassificationMetrics]`."""
    skipped: str | None = None
    """Why the stage passed through without computing. The outputs are valid and flagged."""
    remark: str = ""
    """One or two sentences on the outcome, which reports show beside the metrics."""
    page: Any = None
    """A `shared.reporting.page.Page`, or None."""


Run = Callable[[Any], Result]
"""`run` of a stage's `main.py`: takes the validated declaration, writes its outputs, returns the Result."""
