"""The compiled graph as the executor reads it: where values come from, and what is refused."""

import graphs_for_tests as graphs
import pytest
from kfp import dsl

from pipelines.ir import reader
from pipelines.ir.task_graph import Constant, Parameter, TaskOutput, Text
from shared.system.errors import UserError


def read(pipeline, tmp_path) -> reader.Graph:
    return reader.read(graphs.compiled(pipeline, tmp_path / "graph.yaml"))


@dsl.pipeline(name="inner")
def inner(history: str, text: str, data: dsl.Input[dsl.Dataset], size: int = 5) -> dsl.Dataset:
    one = graphs.add("one", history, text=text, size=size)
    return graphs.add("two", history, artifacts={"a": one.outputs["out"], "b": data}).outputs["out"]


@dsl.pipeline(name="middle")
def middle(history: str, data: dsl.Input[dsl.Dataset]) -> dsl.Dataset:
    return inner(history=history, text=f"of {history}!", data=data).set_display_name("deep").output


def test_sources_lead_through_nested_pipelines(tmp_path):
    @dsl.pipeline(name="outer")
    def outer(history: str):
        start = graphs.add("start", history)
        first = middle(history=history, data=start.outputs["out"]).set_display_name("round-0")
        middle(history=history, data=first.output).set_display_name("round-1")

    tasks = read(outer, tmp_path).tasks
    names = [f"round-{number}/deep/{name}" for number in (0, 1) for name in ("one", "two")]
    assert set(tasks) == {"start", *names}
    assert tasks["round-0/deep/two"].artifacts == {
        "a": TaskOutput("round-0/deep/one", "out"),
        "b": TaskOutput("start", "out"),
    }
    assert tasks["round-1/deep/two"].artifacts["b"] == TaskOutput("round-0/deep/two", "out")
    assert tasks["round-1/deep/one"].parameters["size"] == Constant(5), "a nested pipeline's default"
    assert tasks["round-1/deep/one"].parameters["history"] == Parameter("history")
    text = tasks["round-1/deep/one"].parameters["text"]
    assert isinstance(text, Text) and list(text.values.values()) == [Parameter("history")]
    assert tasks["round-1/deep/one"].after == set(), "it needs nothing of the round before"


def test_after_without_data_waits_for_all_of_a_nested_pipeline(tmp_path):
    @dsl.pipeline(name="outer")
    def outer(history: str):
        start = graphs.add("start", history)
        nested = middle(history=history, data=start.outputs["out"])
        graphs.add("last", history, after=(nested,))

    tasks = read(outer, tmp_path).tasks
    assert tasks["last"].after == {"middle/deep/one", "middle/deep/two"}
    assert list(tasks)[-1] == "last"


def test_downstream_is_all_that_waits_for_a_task(tmp_path):
    graph = reader.read(graphs.chain(tmp_path / "chain.yaml"))
    assert graph.downstream("second") == {"second", "third"}
    assert graph.downstream("first") == {"first", "second", "third"}


def test_tasks_shown_under_one_name_keep_apart(tmp_path):
    @dsl.pipeline(name="twins")
    def twins(history: str):
        graphs.add("twin", history)
        graphs.add("twin", history)

    assert len(read(twins, tmp_path).tasks) == 2


def test_a_display_name_cannot_lead_out_of_the_run_folder(tmp_path):
    @dsl.pipeline(name="escape")
    def escape(history: str):
        graphs.add("../../etc", history)

    (name,) = read(escape, tmp_path).tasks
    assert "/" not in name and not name.startswith(".")


def test_loops_exit_handlers_and_ordered_conditions_are_refused_by_name(tmp_path):
    @dsl.pipeline(name="loop")
    def loop(history: str):
        with dsl.ParallelFor([1, 2]) as item:
            graphs.add("worker", history, size=item)

    @dsl.pipeline(name="handler")
    def handler(history: str):
        with dsl.ExitHandler(graphs.add("clean-up", history)):
            graphs.add("worker", history)

    @dsl.pipeline(name="order")
    def order(history: str, size: int):
        with dsl.If(size > 3):
            graphs.add("worker", history)

    for pipeline, says in ((loop, r"dsl\.ParallelFor"), (handler, "exit handlers"), (order, "use `parameter ==")):
        with pytest.raises(UserError, match=says):
            read(pipeline, tmp_path)
