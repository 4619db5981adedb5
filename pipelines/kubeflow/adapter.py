"""Turn a stage into a Kubeflow container component: the fields of the declaration become its signature."""

import inspect
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from kfp import dsl
from pydantic_core import to_jsonable_python

from pipelines.config import Config
from pipelines.kubeflow import resources
from pipelines.kubeflow.task_settings import apply_settings
from pipelines.validation import external_parameters
from shared.stage.declaration import Stage, port_of
from shared.stage.version import image_version
from shared.stage.wire import plain_type, to_wire


def image_reference(target: str) -> str:
    """Return the reference of the image built from a target of `docker/Dockerfile`: `cytoloom/torch:3f2a...`."""
    return f"{os.environ.get('CYTOLOOM_REGISTRY') or 'cytoloom'}/{target}:{image_version()}"


@cache
def component(stage: type[Stage], target: str, name: str = "") -> Any:
    """Return the component that runs `python -m components SLUG` in the image built from `target`.

    Called in a pipeline, it adds a task, named `name` or else as the stage. The container learns its paths, URIs and
    parameters from the executor input alone.
    """

    def declare(*_: Any) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(
            image=image_reference(target),
            command=["python", "-m", "components", stage.slug(), "--executor-input", "{{$}}"],
        )

    declare.__name__ = name.replace("-", "_") or stage.slug()
    declare.__doc__ = stage.__doc__
    declare.__signature__ = inspect.Signature([_argument(stage, field) for field in stage.model_fields])  # type: ignore[attr-defined]
    return dsl.container_component(declare)


def step(
    config: Config,
    stage: type[Stage],
    *,
    name: str = "",
    nested_in: str = "",
    defaults: Mapping[str, Any] | None = None,
    **wired: Any,
) -> dsl.PipelineTask:
    """Add a task to the pipeline: its connections, the settings of `config`, and the stage's resources.

    name: of the task, such as `evaluate-predictions`, if the stage runs more than once at this level; nested_in: name
    of the nested pipeline, such as `em-0`; defaults: values of fields in this graph, which settings replace; wired: the
    connections, which settings cannot replace.

    Kubeflow's UI looks for a page by the name of its task in the whole run. So a nested task is named
    `em-0-extract-features`, and displayed as `extract-features`.
    """
    profile: resources.Profile = config.profile or resources.PLAIN
    target = (stage.gpu_image if profile.row(stage.slug()).gpu else "") or stage.image
    arguments = {**(defaults or {}), **wired, **config.constants(stage, wired, name)}
    own = name or stage.slug().replace("_", "-")
    task = component(stage, target, f"{nested_in}-{own}" if nested_in else name)(**arguments).set_display_name(own)
    reads_store = any(arguments.get(field) for field in external_parameters(stage))
    return apply_settings(task, stage.slug(), profile, reads_store=reads_store)


def _argument(stage: type[Stage], name: str) -> inspect.Parameter:
    """Turn a field into an argument of a kfp component: an artifact, an output parameter, or a plain value."""
    field = stage.model_fields[name]
    port = port_of(field)
    default: Any = inspect.Parameter.empty
    if port is None:
        annotation: Any = plain_type(field)
        if not field.is_required():
            default = to_wire(field, to_jsonable_python(field.get_default(call_default_factory=True)))
    elif port.is_value:
        annotation = dsl.OutputPath(port.kind)
    else:
        annotation = (dsl.Input if port.direction == "in" else dsl.Output)[artifact_class(port.kind)]
        default = None if port.optional else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def artifact_class(kind: Any) -> Any:
    """Return Kubeflow's class for a kind of artifact: ImageSet -> dsl.Dataset, Model -> dsl.Model, ..."""
    return getattr(dsl, kind.kfp_type)
