"""Settings fixed when a graph is compiled: by stage and by task; read, checked, refused."""

import graphs_for_tests as graphs
import pytest

from pipelines import config
from pipelines.graphs import GRAPHS, summary
from pipelines.ir import reader
from pipelines.ir.task_graph import Constant, Parameter, TaskOutput
from pipelines.parameters import run_time_parameters
from shared.system.errors import UserError


def compiled(tmp_path, *settings: str, path=None) -> reader.Graph:
    return reader.read(graphs.compile_named(config.load(path, settings), tmp_path / "graph.yaml"))


def test_kfp_itself_loads_every_graph(tmp_path):
    from kfp import components

    for name in GRAPHS:
        graphs.compile_named(config.load(), tmp_path / f"{name}.yaml", name)
        loaded = components.load_component_from_file(str(tmp_path / f"{name}.yaml"))
        assert loaded.name == name.replace("_", "-") and summary(name)


def test_rounds_decide_the_graphs_shape(tmp_path):
    rounds = {name.split("/")[0] for name in compiled(tmp_path, "rounds=4").tasks if "/" in name}
    assert rounds == {"em-0", "em-1", "em-2", "em-3"}


def test_each_round_works_from_the_one_before(tmp_path):
    tasks = compiled(tmp_path, "rounds=3").tasks
    assert tasks["em-0/extract-features"].artifacts["model"] == TaskOutput("pretrain", "encoder")
    assert tasks["em-0/refine-masks"].artifacts["previous"] == TaskOutput("ingest", "no_labels")
    assert tasks["em-0/train-segmentor"].parameters["skip"] == Constant(False)
    for earlier, later in (("em-0", "em-1"), ("em-1", "em-2")):
        model = TaskOutput(f"{earlier}/train-segmentor", "segmentor")
        assert tasks[f"{later}/extract-features"].artifacts["model"] == model
        assert tasks[f"{later}/train-segmentor"].artifacts["model"] == model
        assert tasks[f"{later}/refine-masks"].artifacts["previous"] == TaskOutput(f"{earlier}/refine-masks", "labels")
        for stage in ("extract-features", "cluster", "refine-masks", "train-segmentor", "select-model"):
            assert tasks[f"{later}/{stage}"].parameters["skip"] == TaskOutput(f"{earlier}/select-model", "done")
        selection = tasks[f"{later}/select-model"]
        assert selection.artifacts["incumbent"] == TaskOutput(f"{earlier}/select-model", "best")
        assert selection.artifacts["candidate"] == TaskOutput(f"{later}/train-segmentor", "segmentor")
        assert selection.parameters["incumbent_round"] == TaskOutput(f"{earlier}/select-model", "best_round")
        assert selection.parameters["initial_area"] == TaskOutput(f"{earlier}/select-model", "initial_area_out")
        assert selection.parameters["agreement"] == TaskOutput(f"{later}/refine-masks", "agreement")
        noise = TaskOutput(f"{later}/refine-masks", "noise")
        assert tasks[f"{later}/train-segmentor"].parameters["drop_fraction"] == noise
    assert tasks["em-0/select-model"].artifacts["incumbent"] == TaskOutput("pretrain", "encoder")
    assert tasks["infer"].artifacts["model"] == TaskOutput("em-2/select-model", "best")
    assert tasks["evaluate-predictions"].artifacts["predictions"] == TaskOutput("infer", "predictions")
    assert "model" not in tasks["evaluate-predictions"].artifacts


def test_paths_that_stages_read_by_themselves_become_absolute(tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    graph = compiled(tmp_path, "pretrain.weights=vit.pth", "pretrain.weights_from=s3://bucket/encoder")
    assert run_time_parameters(graph, [], "images")["source"] == str(tmp_path / "images")
    given = graph.tasks["pretrain"].parameters
    assert given["weights"] == Constant(str(tmp_path / "vit.pth"))
    assert given["weights_from"] == Constant("s3://bucket/encoder")


def test_every_stage_that_reads_labels_gets_the_number_to_learn_from(tmp_path):
    tasks = compiled(tmp_path, "rounds=2").tasks
    fed = {name for name, task in tasks.items() if task.parameters.get("use_labels") == Parameter("use_labels")}
    assert fed == {name for name, task in tasks.items() if "truth" in task.artifacts} and "evaluate-predictions" in fed


def test_settings_are_constants_and_the_command_line_wins_over_the_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("rounds: 1\npretrain: {size: tiny, mask_ratio: 0.5}\ninfer: {tile: 128}\n")
    settings = ("pretrain.mask_ratio=0.6", "infer.foreground_threshold=0.25", "pretrain.patch=16")
    graph = compiled(tmp_path, *settings, path=file)
    assert graph.tasks["pretrain"].parameters["patch"] == Constant(16)
    assert graph.tasks["pretrain"].parameters["size"] == Constant("tiny")
    assert graph.tasks["pretrain"].parameters["mask_ratio"] == Constant(0.6)
    assert graph.tasks["infer"].parameters["tile"] == Constant(128)
    assert graph.tasks["infer"].parameters["foreground_threshold"] == Constant("0.25")


def test_a_setting_of_what_a_run_time_parameter_feeds_is_that_parameters_default(tmp_path):
    graph = compiled(tmp_path, "pretrain.steps=7", "cluster.k=5", "train_segmentor.steps=9")
    assert graph.tasks["pretrain"].parameters["steps"] == Parameter("pretrain_steps")
    assert [graph.parameters[name].default for name in ("pretrain_steps", "k", "train_steps")] == [7, "5", 9]


def test_about_eight_run_time_parameters_remain(tmp_path):
    parameters = compiled(tmp_path).parameters
    assert len(parameters) == 8 and [name for name, spec in parameters.items() if spec.required] == ["source"]


@pytest.mark.parametrize(
    "setting, says",
    [
        ("pretrain.stepz=5", "pretrain.stepz: pretrain has no such parameter; did you mean steps?"),
        ("pretrian.steps=5", "pretrian: no such stage; did you mean pretrain?"),
        ("round=2", "round: no such stage; did you mean rounds?"),
        ("pretrain.steps=0", "pretrain.steps: Input should be greater than 0 (given: 0)"),
        ("pretrain.steps=many", "pretrain.steps: Input should be a valid integer"),
        ("pretrain.size=huge", "pretrain.size: Input should be 'nano'"),
        ("rounds=0", "rounds: a whole number from 1 to 50"),
        ("rounds=two", "rounds: a whole number from 1 to 50"),
        ("pretrain", "--set pretrain: no value; write STAGE.FIELD=VALUE"),
        ("pretrain=5", "pretrain: a mapping of fields to values is expected"),
        ("cluster.skip=true", "cluster.skip: the graph itself sets it"),
        ("cluster.seed=3", "cluster.seed: the graph itself sets it"),
        ("cluster.images=/x", "cluster.images: an input or output, which the graph connects"),
        ("ingest.source=/x", "ingest.source: the graph itself sets it"),
    ],
)
def test_a_wrong_setting_is_refused_with_the_closest_name(tmp_path, setting, says):
    with pytest.raises(UserError) as caught:
        compiled(tmp_path, setting)
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize(
    "text, says", [("a: [", "not YAML"), ("- 1", "not a mapping"), ("pretrain: {5: 1}", "no such parameter")]
)
def test_a_broken_config_file_is_refused(tmp_path, text, says):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=says):
        compiled(tmp_path, path=file)
    with pytest.raises(UserError, match=r"nowhere\.yaml"):
        config.load(tmp_path / "nowhere.yaml")
