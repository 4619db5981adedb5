"""The compiled graph as the executor reads it: where values come from, and what is refused."""

import graphs_for_tests as graphs
import pytest
import yaml
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


@pytest.mark.parametrize(
    "shown",
    [
        ["a", "a", "a-2", "a"],
        ["../victim", "..", "run.json", "/etc/x"],
        ["x/y", "x y", "x\\y", "x:y"],
        ["...", "--", " ", "é"],
    ],
)
def test_names_and_keys_from_elsewhere_are_safe_and_unique(tmp_path, shown):
    """Of two tasks of one name, neither is lost."""
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(four_tasks(shown, [f"../k{i}" for i in range(4)], "data")))
    names = list(reader.read(path).tasks)
    assert len(set(names)) == 4 and "run.json" not in names
    for name in names:
        assert (tmp_path / "run" / name).resolve().parent == (tmp_path / "run").resolve()


@pytest.mark.parametrize("output", ["../x", "a/b", "", ".hidden", "a\nb"])
def test_outputs_that_cannot_name_a_file_are_refused(tmp_path, output):
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(four_tasks(list("abcd"), list("abcd"), output)))
    with pytest.raises(UserError, match="cannot name a file"):
        reader.read(path)


def four_tasks(shown: list[str], keys: list[str], output: str) -> dict:
    """A compiled pipeline of four tasks, as a hand may change it."""
    component = {
        "executorLabel": "exec",
        "outputDefinitions": {"artifacts": {output: {"artifactType": {"schemaTitle": "system.Dataset"}}}},
    }
    tasks = {
        key: {"taskInfo": {"name": name}, "componentRef": {"name": "comp"}}
        for key, name in zip(keys, shown, strict=True)
    }
    return {
        "pipelineInfo": {"name": "p"},
        "root": {"dag": {"tasks": tasks}},
        "components": {"comp": component},
        "deploymentSpec": {"executors": {"exec": {"container": {"image": "i", "command": ["true"]}}}},
        "schemaVersion": "2.1.0",
        "sdkVersion": "kfp-2.15.0",
    }
