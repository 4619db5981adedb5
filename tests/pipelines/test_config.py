"""Settings fixed when a graph is compiled: by stage and by task; read, checked, refused."""

import graphs_for_tests as graphs
import pytest
import yaml

from pipelines import config
from pipelines.graphs import GRAPHS, PRESETS, summary
from pipelines.ir import reader
from pipelines.ir.task_graph import Constant, Parameter, TaskOutput
from shared.system.errors import UserError


def compiled(tmp_path, *settings: str, path=None) -> reader.Graph:
    return reader.read(graphs.compile_named(config.load_config(path, settings), tmp_path / "graph.yaml"))


def test_kfp_itself_loads_every_graph(tmp_path):
    from kfp import components

    for name in GRAPHS:
        graphs.compile_named(config.load_config(), tmp_path / f"{name}.yaml", name)
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
        assert selection.parameters["proposed_area"] == TaskOutput(f"{later}/refine-masks", "proposed_area")
        noise = TaskOutput(f"{later}/refine-masks", "noise")
        assert tasks[f"{later}/train-segmentor"].parameters["drop_fraction"] == noise
    assert tasks["em-0/select-model"].artifacts["incumbent"] == TaskOutput("pretrain", "encoder")
    assert tasks["infer"].artifacts["segmentor"] == TaskOutput("em-2/select-model", "best")
    assert tasks["evaluate-predictions"].artifacts["predictions"] == TaskOutput("infer", "predictions")
    assert "model" not in tasks["evaluate-predictions"].artifacts


def test_every_stage_that_reads_labels_gets_the_number_to_learn_from(tmp_path):
    tasks = compiled(tmp_path, "rounds=2").tasks
    fed = {name for name, task in tasks.items() if task.parameters.get("use_labels") == Parameter("use_labels")}
    readers = {name for name, task in tasks.items() if "truth" in task.artifacts and "use_labels" in task.kinds}
    assert fed == readers and "evaluate-predictions" in fed
    others = {task.stage for name, task in tasks.items() if "truth" in task.artifacts and name not in fed}
    assert others == {"export_model"}, "it compares files with the weights on the same images"


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


def test_about_nine_run_time_parameters_remain(tmp_path):
    parameters = compiled(tmp_path).parameters
    assert len(parameters) == 9 and [name for name, spec in parameters.items() if spec.required] == ["source"]


@pytest.mark.parametrize(
    "setting, says",
    [
        ("pretrain.stepz=5", "pretrain.stepz: pretrain has no such parameter; did you mean steps?"),
        ("pretrian.steps=5", "pretrian: no such stage; did you mean pretrain?"),
        ("round=2", "round: no such stage; did you mean rounds?"),
        ("pretrain.steps=0", "pretrain.steps: Input should be greater than 0 (given: 0)"),
        ("pretrain.steps=many", "pretrain.steps: Input should be a valid integer"),
        ("pretrain.size=huge", "pretrain.size: Input should be 'nano'"),
        ("cluster.k=many", "cluster.k: Input should be a whole number >= 1, <= 250, or 'auto'"),
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
        config.load_config(tmp_path / "nowhere.yaml")


def constants(graph: reader.Graph, stage: str, field: str) -> dict[str, object]:
    """Task -> constant of `field`, of the tasks that run `stage` and have one."""
    found = {name: task.parameters.get(field) for name, task in graph.tasks.items() if task.stage == stage}
    return {name: source.value for name, source in found.items() if isinstance(source, Constant)}


def test_a_stages_setting_holds_for_each_of_its_tasks(tmp_path):
    graph = compiled(tmp_path, "rounds=2", "evaluate.max_images=5")
    tasks = ("em-0/evaluate", "em-1/evaluate", "evaluate-predictions")
    assert constants(graph, "evaluate", "max_images") == dict.fromkeys(tasks, "5")


def test_a_graphs_own_default_holds_where_nothing_is_set(tmp_path):
    graph = compiled(tmp_path, "rounds=2")
    found = {"em-0/evaluate": "20", "em-1/evaluate": "20", "evaluate-predictions": "all"}
    assert constants(graph, "evaluate", "max_images") == found


def test_a_tasks_setting_wins_over_its_stages(tmp_path):
    settings = ("evaluate.max_images=5", "em/evaluate.max_images=7", "em-1/evaluate.max_images=9")
    graph = compiled(tmp_path, "rounds=3", *reversed(settings))
    found = {"em-0/evaluate": "7", "em-1/evaluate": "9", "em-2/evaluate": "7", "evaluate-predictions": "5"}
    assert constants(graph, "evaluate", "max_images") == found


def test_a_task_outside_the_rounds_has_settings_of_its_own(tmp_path):
    graph = compiled(tmp_path, "rounds=1", "evaluate-predictions.max_images=3", "export-model.batch_size=2")
    assert constants(graph, "evaluate", "max_images") == {"em-0/evaluate": "20", "evaluate-predictions": "3"}
    assert constants(graph, "export_model", "batch_size") == {"export-model": 2}


def test_rounds_share_one_definition_but_those_with_settings_of_their_own(tmp_path):
    settings = ("rounds=12", "em-1/cluster.k=16", "em/extract-features.tile=64")
    groups = config.load_config(settings=settings).groups("em", [f"em-{number}" for number in range(12)])
    assert len({id(group) for group in groups}) == 2 and groups.count(groups[1]) == 1, "em-10 and em-11 are not em-1"
    graph = compiled(tmp_path, *settings)
    assert constants(graph, "cluster", "k") == {"em-1/cluster": "16"}
    assert graph.tasks["em-0/cluster"].parameters["k"] == graph.tasks["em-11/cluster"].parameters["k"] == Parameter("k")
    assert set(constants(graph, "extract_features", "tile").values()) == {64}
    assert graph.tasks["em-2/extract-features"].artifacts["model"] == TaskOutput("em-1/train-segmentor", "segmentor")


def test_a_setting_of_every_round_is_the_default_of_the_parameter_that_feeds_it(tmp_path):
    graph = compiled(tmp_path, "rounds=2", "cluster.k=5", "em/cluster.k=6", "em/train-segmentor.steps=9")
    assert [graph.parameters[name].default for name in ("k", "train_steps")] == ["6", 9]
    assert not constants(graph, "cluster", "k")


def test_settings_of_tasks_may_stand_in_the_file(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("rounds: 2\nem-1/cluster: {k: 16}\nevaluate-predictions: {max_images: 3}\n")
    graph = compiled(tmp_path, "em-1/cluster.pca_components=8", path=file)
    assert constants(graph, "cluster", "k") == {"em-1/cluster": "16"}
    assert constants(graph, "cluster", "pca_components")["em-1/cluster"] == "8"
    assert constants(graph, "evaluate", "max_images")["evaluate-predictions"] == "3"


@pytest.mark.parametrize(
    "setting, says",
    [
        ("em/clustr.k=5", "em/clustr: label_free has no such task; did you mean em/cluster?; its tasks are ingest, "),
        ("em-7/cluster.k=5", "em-7/cluster: label_free has no such task; did you mean em-"),
        (
            "evaluate-prediction.max_images=5",
            "evaluate-prediction: label_free has no such task; did you mean evaluate-",
        ),
        ("extract-features.tile=64", "extract-features: label_free has no such task; did you mean "),
        ("em/cluster.kk=5", "em/cluster.kk: cluster has no such parameter; did you mean k?"),
        ("em-1/cluster.k=many", "em-1/cluster.k: Input should be a whole number"),
        ("em-1/cluster.skip=true", "em-1/cluster.skip: the graph itself sets it"),
        ("em-1/cluster.seed=3", "em-1/cluster.seed: the graph itself sets it"),
        ("em/cluster=3", "em/cluster: a mapping of fields to values is expected"),
    ],
)
def test_a_wrong_setting_of_a_task_is_refused(tmp_path, setting, says):
    with pytest.raises(UserError) as caught:
        compiled(tmp_path, setting)
    assert str(caught.value).startswith(says)


def test_every_task_name_is_unique_at_its_level(tmp_path):
    compiled(tmp_path)
    spec = next(yaml.safe_load_all((tmp_path / "graph.yaml").read_text()))
    for dag in (spec["root"]["dag"], *(item["dag"] for item in spec["components"].values() if "dag" in item)):
        names = [task["taskInfo"]["name"] for task in dag["tasks"].values()]
        assert len(names) == len(set(names))


def test_the_demos_preset_is_a_config_of_its_graph(tmp_path):
    graph = compiled(tmp_path, path=PRESETS / "demo.yaml")
    assert {name.split("/")[0] for name in graph.tasks if "/" in name} == {"em-0", "em-1", "em-2"}
    defaults = {name: graph.parameters[name].default for name in ("pretrain_steps", "train_steps", "stop_agreement")}
    assert defaults == {"pretrain_steps": 150, "train_steps": 100, "stop_agreement": 0.95}
