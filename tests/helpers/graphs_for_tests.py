"""Small graphs of `worker.py` and the named graphs, compiled by kfp."""

import inspect
import sys
from pathlib import Path

from kfp import compiler, dsl

from pipelines import graphs
from pipelines.config import Config
from pipelines.kubeflow.compile import compile_graph

WORKER = Path(__file__).with_name("worker.py")


def signature(**kinds) -> inspect.Signature:
    """Return the signature of a component with these arguments, without defaults."""
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature([inspect.Parameter(name, kind, annotation=value) for name, value in kinds.items()])


def worker(*inputs: str, gpu: bool = False):
    """Return a container component that reads the artifacts `inputs` and writes `out` and the parameter `length`."""

    def declare(*_):
        command = [sys.executable, str(WORKER), "--executor-input", "{{$}}"]
        return dsl.ContainerSpec(image="worker", command=command)

    kinds = dict.fromkeys(inputs, (dsl.Input[dsl.Dataset], inspect.Parameter.empty))
    kinds |= {"out": (dsl.Output[dsl.Dataset], inspect.Parameter.empty)}
    kinds |= {"length": (dsl.OutputPath(int), inspect.Parameter.empty)}
    kinds |= {"name": (str, inspect.Parameter.empty), "history": (str, inspect.Parameter.empty)}
    kinds |= {"text": (str, ""), "failures": (int, 0), "meet": (str, ""), "size": (int, 0)}
    declare.__signature__ = inspect.Signature(
        [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, annotation=a, default=d) for n, (a, d) in kinds.items()]
    )
    declare.__name__ = "worker"
    return dsl.container_component(declare)


def add(name: str, history, gpu: bool = False, retries: int = 0, after: tuple = (), artifacts=None, **parameters):
    """Add a task displayed as `name`."""
    artifacts = artifacts or {}
    task = worker(*artifacts)(name=name, history=history, **artifacts, **parameters).set_display_name(name)
    task.after(*after)
    if retries:
        task.set_retry(retries)
    if gpu:
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
    return task


def compiled(pipeline, path: Path) -> Path:
    compiler.Compiler().compile(pipeline, str(path))
    return path


def compile_named(config: Config, path: Path, name: str = "label_free") -> Path:
    """Compile a graph of `pipelines.graphs`."""
    compile_graph(name, graphs.load_graph(name), config, path)
    return path


def chain(path: Path) -> Path:
    """Compile first -> second -> third, and the independent task beside. second gets the length of first's output."""

    @dsl.pipeline(name="chain")
    def pipeline(history: str, text: str = "abc"):
        first = add("first", history, text=text)
        second = add("second", history, artifacts={"a": first.outputs["out"]}, size=first.outputs["length"])
        add("third", history, artifacts={"a": second.outputs["out"], "b": first.outputs["out"]}, text="-")
        add("beside", history, text="beside")

    return compiled(pipeline, path)
