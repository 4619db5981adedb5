"""Every graph compiles, and connects the tasks as its description says; presets are configs of their graphs."""

import re
from pathlib import Path

import graphs_for_tests as graphs
import pytest

from pipelines import config
from pipelines.graphs import GRAPHS, PRESETS, summary
from pipelines.ir import reader
from pipelines.ir.task_graph import Constant, Graph, Parameter, TaskOutput
from pipelines.kubeflow.lint import lint
from pipelines.kubeflow.task_paths import task_paths

MODULES = {path.stem for path in PRESETS.parent.glob("*.py") if "def build(" in path.read_text()}
KINDS = ("classifier", "detector", "segmentor")


def compiled(name: str, folder: Path, *settings: str, file: Path | None = None) -> Graph:
    return reader.read(graphs.compile_named(config.load_config(file, settings), folder / "graph.yaml", name))


def origin(graph: Graph, task: str, port: str) -> str:
    """`TASK.OUTPUT` that an input is connected to; empty where it is not connected."""
    source = graph.tasks[task].artifacts.get(port)
    return f"{source.task}.{source.key}" if isinstance(source, TaskOutput) else ""


def test_every_graph_is_listed():
    assert set(GRAPHS) == MODULES and len(GRAPHS) == len(MODULES)


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_compiles_and_a_cluster_can_run_it(name, tmp_path):
    graph = compiled(name, tmp_path)
    assert lint(tmp_path / "graph.yaml") == []
    assert graph.name == name.replace("_", "-") and summary(name).endswith(".")
    assert graph.parameters["source"].required and not graph.parameters["fingerprint"].required
    assert [key for key, spec in graph.parameters.items() if spec.required] == ["source"]


@pytest.mark.parametrize("kind", ["classifier", "detector"])
def test_one_model_is_trained_scored_exported_and_applied(kind, tmp_path):
    graph = compiled(kind, tmp_path)
    assert set(graph.tasks) == {"ingest", "pretrain", f"train-{kind}", "evaluate", "export-model", "infer"}
    trained = f"train-{kind}.{kind}"
    assert origin(graph, f"train-{kind}", "encoder") == "pretrain.encoder"
    assert origin(graph, "evaluate", "model") == origin(graph, "export-model", "model") == trained
    assert origin(graph, "infer", kind) == "export-model.exported", "what was checked is applied"
    assert not any(origin(graph, "infer", other) for other in KINDS if other != kind)
    assert graph.tasks[f"train-{kind}"].parameters["without_labels"] == Constant("fail")
    assert graph.tasks[f"train-{kind}"].parameters["steps"] == Parameter("train_steps")


def test_instances_are_learned_from_label_images_scored_exported_and_applied(tmp_path):
    graph = compiled("instances", tmp_path)
    assert set(graph.tasks) == {"ingest", "pretrain", "train-segmentor", "evaluate", "export-model", "infer"}
    trained = graph.tasks["train-segmentor"]
    assert origin(graph, "train-segmentor", "labels") == origin(graph, "evaluate", "truth") == "ingest.labels"
    assert origin(graph, "train-segmentor", "model") == "pretrain.encoder"
    assert origin(graph, "infer", "segmentor") == "export-model.exported", "what was checked is applied"
    assert trained.parameters["target"] == Constant("flow") and trained.parameters["steps"] == Parameter("train_steps")
    assert graph.parameters["train_steps"].default == 1000
    asked = compiled("instances", tmp_path, "train_segmentor.target=distance", "train_segmentor.steps=7")
    assert asked.tasks["train-segmentor"].parameters["target"] == Constant("distance")
    assert asked.parameters["train_steps"].default == 7


def test_a_detector_learns_from_boxes_alone_unless_it_is_asked(tmp_path):
    graph = compiled("detector", tmp_path)
    assert origin(graph, "train-detector", "unlabelled") == "ingest.images"
    assert graph.tasks["train-detector"].parameters["unlabelled_weight"] == Constant(0.0)
    asked = compiled("detector", tmp_path, "train_detector.unlabelled_weight=2")
    assert asked.tasks["train-detector"].parameters["unlabelled_weight"] == Constant(2.0)


def test_full_trains_three_models_and_joins_them(tmp_path):
    graph = compiled("full", tmp_path, "rounds=2")
    once = {name for name in graph.tasks if "/" not in name}
    assert once == {
        *("ingest", "pretrain", "sample-images", "train-classifier", "train-detector", "infer"),
        *(f"{word}-{kind}" for word in ("evaluate", "export") for kind in KINDS),
    }
    made = {
        "classifier": "train-classifier.classifier",
        "detector": "train-detector.detector",
        "segmentor": "em-1/select-model.best",
    }
    for kind, model in made.items():
        assert origin(graph, f"evaluate-{kind}", "model") == origin(graph, f"export-{kind}", "model") == model
        assert origin(graph, "infer", kind) == f"export-{kind}.exported"
    assert origin(graph, "train-detector", "pseudo") == "em-1/refine-masks.labels"
    for kind in ("classifier", "detector"):
        assert graph.tasks[f"train-{kind}"].parameters["without_labels"] == Constant("skip")


def test_the_rounds_of_full_are_those_of_label_free(tmp_path):
    label_free, full = (compiled(name, tmp_path, "rounds=2").tasks for name in ("label_free", "full"))
    rounds = {name: task for name, task in label_free.items() if "/" in name}
    assert len(rounds) == 12 and rounds == {name: task for name, task in full.items() if "/" in name}


@pytest.mark.parametrize("name", ["label_free", "full"])
def test_a_task_of_a_round_is_named_with_its_round_on_a_cluster_and_below_it_here(name, tmp_path):
    graph = compiled(name, tmp_path, "rounds=2", "em-1/cluster.k=16")
    paths = task_paths(tmp_path / "graph.yaml")
    assert set(graph.tasks) | {"em-0", "em-1"} == set(paths.values())
    assert paths == {path.replace("/", "-"): path for path in paths.values()}
    assert paths["em-1-extract-features"] == "em-1/extract-features"


def test_tasks_of_one_stage_have_settings_of_their_own(tmp_path):
    settings = ("export_model.batch_size=3", "export-detector.batch_size=2")
    graph = compiled("full", tmp_path, "rounds=1", *settings)
    found = {kind: graph.tasks[f"export-{kind}"].parameters["batch_size"] for kind in KINDS}
    assert found == {"classifier": Constant(3), "detector": Constant(2), "segmentor": Constant(3)}


def test_infer_imports_one_model_of_each_kind_by_a_parameter(tmp_path):
    graph = compiled("infer", tmp_path)
    for kind in KINDS:
        task = graph.tasks[f"import-{kind}"]
        assert task.parameters["source"] == Parameter(kind) and task.parameters["kind"] == Constant(kind)
        assert origin(graph, "infer", kind) == f"import-{kind}.model"
        assert graph.parameters[kind].default == ""
    assert origin(graph, "evaluate-predictions", "predictions") == "infer.predictions"


PRESET_FILES = sorted(PRESETS.glob("*.yaml"))


def command(preset: Path) -> list[str]:
    """The words of the `cytoloom` command in a preset's header."""
    lines = [line.removeprefix("#").strip() for line in preset.read_text().splitlines() if line.startswith("#")]
    text = " ".join(lines).partition("cytoloom ")[2]
    return re.split(r" (?:Data|Time): ", text)[0].split()


@pytest.mark.parametrize("preset", PRESET_FILES, ids=lambda path: path.stem)
def test_a_preset_is_a_config_of_the_graph_in_its_command(preset, tmp_path):
    words = command(preset)
    assert words[0] == "run" and f"pipelines/graphs/presets/{preset.name}" in words
    compiled(words[1], tmp_path, file=preset)


@pytest.mark.parametrize("preset", PRESET_FILES, ids=lambda path: path.stem)
def test_a_presets_header_tells_what_it_costs_and_gives(preset):
    header = preset.read_text().partition("\n\n")[0]
    for word in ("# Command:", "# Time:", "# Memory:", "# Result:"):
        assert word in header


def test_every_graph_has_a_preset():
    assert {command(preset)[1] for preset in PRESET_FILES} == set(GRAPHS)


def test_rounds_read_a_part_of_a_large_set(tmp_path):
    """A cluster copies to a pod what its task reads: the whole set to four tasks, however many rounds there are."""
    graph = compiled("label_free", tmp_path, "rounds=3")
    assert readers(graph, "ingest.images") == {"pretrain", "sample-images", "infer", "evaluate-predictions"}
    assert readers(graph, "ingest.labels") == {"sample-images", "evaluate-predictions"}
    loop = {"extract-features", "cluster", "refine-masks", "train-segmentor", "select-model"}
    rounds = [f"em-{number}" for number in range(3)]
    assert readers(graph, "sample-images.learned") == {f"{group}/{name}" for group in rounds for name in loop}
    assert readers(graph, "sample-images.sample") == {"export-model", *(f"{group}/evaluate" for group in rounds)}
    whole = readers(compiled("full", tmp_path), "ingest.images")
    assert not [name for name in whole if "/" in name or name == "export-segmentor"]


def readers(graph: Graph, output: str) -> set[str]:
    """Tasks that read an output, `TASK.OUTPUT`."""
    return {
        name for name, task in graph.tasks.items() for port in task.artifacts if origin(graph, name, port) == output
    }
