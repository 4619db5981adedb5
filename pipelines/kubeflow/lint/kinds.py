"""Rule for connections: an input of one artifact kind is not connected to an output of another kind.

Kubeflow does not see the difference: an ImageSet, a LabelSet and a FeatureSet are all `system.Dataset` there.
"""

from collections.abc import Iterator
from pathlib import Path

from components.registry import declaration, names
from pipelines.ir import reader
from pipelines.ir.task_graph import Graph, Task, TaskOutput
from shared.system.errors import UserError


def mismatches(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (task, message) of each connection between different kinds, also through nested pipelines.

    Skips pipelines that the reader refuses, such as one with a loop, and connections to components that are no stages.
    """
    try:
        graph = reader.read(path)
    except UserError:
        return
    for task in graph.tasks.values():
        for name, source in task.artifacts.items():
            if isinstance(source, TaskOutput):
                yield from _mismatch(graph, task, name, source)


def _mismatch(graph: Graph, task: Task, name: str, source: TaskOutput) -> Iterator[tuple[str, str]]:
    needed, made = _kind(task, name), _kind(graph.tasks[source.task], source.key)
    if needed and made and not issubclass(made, needed):
        output = f"{source.task}.{source.key}"
        yield task.name, f"{name}: needs {_with_article(needed)}, {output} is {_with_article(made)}"


def _kind(task: Task, port: str) -> type | None:
    """The artifact kind of an input or output; None if the stage or the port is unknown."""
    if task.stage not in names():
        return None
    found = declaration(task.stage).ports().get(port)
    return found.kind if found and found.is_artifact else None


def _with_article(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"
