"""Run-time parameters: parsed by type, completed by defaults, with absolute paths and the fingerprint of the source."""

import graphs_for_tests as graphs
import pytest

from pipelines.config import load_config
from pipelines.ir import reader
from pipelines.ir.task_graph import Constant, Graph, ParameterSpec
from pipelines.parameters import run_time_parameters
from shared.readers.fingerprint import fingerprint
from shared.system.errors import UserError


def graph(**kinds: str) -> Graph:
    """Return a graph without tasks whose parameters have these types and no defaults."""
    return Graph("probe", {name: ParameterSpec(kind, required=True) for name, kind in kinds.items()}, {})


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("NUMBER_INTEGER", "7", 7),
        ("NUMBER_DOUBLE", "0.5", 0.5),
        ("STRING", "7", "7"),
        ("BOOLEAN", "True", True),
        ("LIST", "[1, 2]", [1, 2]),
        ("STRUCT", '{"a": 1}', {"a": 1}),
    ],
)
def test_a_value_is_parsed_by_the_parameters_type(kind, text, value):
    assert run_time_parameters(graph(x=kind), [f"x={text}"], None) == {"x": value}


@pytest.mark.parametrize(("kind", "text"), [("NUMBER_INTEGER", "0.5"), ("BOOLEAN", "yes"), ("LIST", "[")])
def test_a_value_of_another_type_is_refused(kind, text):
    with pytest.raises(UserError, match=r"--param x: .* is not of the type"):
        run_time_parameters(graph(x=kind), [f"x={text}"], None)


def test_defaults_complete_what_is_given_and_the_fingerprint_follows_the_source(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    specs = {"source": ParameterSpec("STRING", True), "fingerprint": ParameterSpec("STRING", False, "")}
    values = run_time_parameters(
        Graph("probe", {**specs, "seed": ParameterSpec("NUMBER_INTEGER", False, 3)}, {}), [], str(tmp_path)
    )
    assert values == {"source": str(tmp_path), "fingerprint": fingerprint(tmp_path), "seed": 3}


def test_paths_that_stages_read_by_themselves_become_absolute(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    settings = ("pretrain.weights=vit.pth", "pretrain.weights_from=s3://bucket/encoder")
    graph = reader.read(graphs.compile_named(load_config(settings=settings), tmp_path / "graph.yaml"))
    assert run_time_parameters(graph, [], "images")["source"] == str(tmp_path / "images")
    given = graph.tasks["pretrain"].parameters
    assert given["weights"] == Constant(str(tmp_path / "vit.pth"))
    assert given["weights_from"] == Constant("s3://bucket/encoder")
