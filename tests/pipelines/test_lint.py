"""The linter: silent on our graphs, and one finding for each fault, in graphs that kfp itself compiles."""

from pathlib import Path

import pytest
import yaml
from kfp import compiler, dsl, kubernetes

from pipelines import config, resources
from pipelines.__main__ import main
from pipelines.graphs import GRAPHS, compile_graph
from pipelines.lint import lint
from shared.errors import UserError

IMAGE = "registry.example/lab/image:3f2a"


@dsl.container_component
def work(number: int, page: dsl.Output[dsl.HTML]):
    return dsl.ContainerSpec(image=IMAGE, command=["work", number, page.path])


@dsl.container_component
def two_pages(number: int, page: dsl.Output[dsl.HTML], other: dsl.Output[dsl.HTML]):
    return dsl.ContainerSpec(image=IMAGE, command=["work", number, page.path, other.path])


@dsl.container_component
def moving(number: int):
    return dsl.ContainerSpec(image="registry.example:5000/lab/image:latest", command=["work", number])


@dsl.container_component
def untagged(number: int):
    return dsl.ContainerSpec(image="registry.example:5000/lab/image", command=["work", number])


@dsl.container_component
def login(api_token: str):
    return dsl.ContainerSpec(image=IMAGE, command=["work", api_token])


def good(task, gpu: bool = False):
    """What the linter wants of a task."""
    task.set_memory_limit("1Gi")
    if gpu:
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1).set_retry(2)
        kubernetes.empty_dir_mount(task, volume_name="dshm", mount_path="/dev/shm", medium="Memory", size_limit="1Gi")
        kubernetes.set_timeout(task, 3600)
    return task


def rules(tmp_path: Path, build, name: str = "probe") -> list[str]:
    """Rules that the pipeline made of `build(number)` breaks."""

    @dsl.pipeline(name=name)
    def pipeline(number: int = 1):
        build(number)

    compiler.Compiler().compile(pipeline, str(tmp_path / "probe.yaml"))
    return [finding.rule for finding in lint(tmp_path / "probe.yaml")]


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("cpu_only", [False, True])
def test_our_graphs_are_clean(graph, cpu_only, tmp_path):
    profile = tmp_path / "profile.yaml"
    profile.write_text("{secret: s3, cache: cache, checkpoints: checkpoints}")
    found = config.load(profile=resources.load(profile, cpu_only=cpu_only))
    compile_graph(graph, found, tmp_path / "graph.yaml")
    assert lint(tmp_path / "graph.yaml") == []


def test_a_good_task_is_clean(tmp_path):
    assert rules(tmp_path, lambda number: good(work(number=number), gpu=True)) == []


def without_shm(number):
    task = good(work(number=number))
    task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1).set_retry(2)
    kubernetes.set_timeout(task, 3600)


def without_timeout(number):
    task = good(work(number=number))
    task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1).set_retry(2)
    kubernetes.empty_dir_mount(task, volume_name="dshm", mount_path="/dev/shm", medium="Memory", size_limit="1Gi")


def without_retry(number):
    task = good(work(number=number))
    task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
    kubernetes.empty_dir_mount(task, volume_name="dshm", mount_path="/dev/shm", medium="Memory", size_limit="1Gi")
    kubernetes.set_timeout(task, 3600)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda number: work(number=number), "memory"),
        (lambda number: good(work(number=number)).set_accelerator_limit(1), "gpu-type"),
        (without_shm, "shm"),
        (without_timeout, "timeout"),
        (without_retry, "retry"),
        (lambda number: good(moving(number=number)), "image-tag"),
        (lambda number: good(untagged(number=number)), "image-tag"),
        (lambda number: good(two_pages(number=number)), "html"),
        (lambda number: good(login(api_token="hunter2")), "secret"),
        (lambda number: good(work(number=number)).set_env_variable("DB_PASSWORD", "hunter2"), "secret"),
        (lambda number: good(work(number=number)).set_env_variable("URL", "https://me:hunter2@host/x"), "secret"),
        (lambda number: good(work(number=number)).set_display_name("x"), None),
    ],
)
def test_each_fault_is_found_once(build, expected, tmp_path):
    assert rules(tmp_path, build) == ([expected] if expected else [])


def test_a_name_that_kubernetes_cuts_off(tmp_path):
    assert rules(tmp_path, lambda number: good(work(number=number)), name="a-pipeline-with-quite-a-long-name") == [
        "name"
    ]


def test_an_optional_artifact_does_not_get_into_a_nested_pipeline(tmp_path):
    @dsl.container_component
    def reads(data: dsl.Input[dsl.Dataset] = None):
        return dsl.ContainerSpec(image=IMAGE, command=["work"])

    @dsl.pipeline
    def inner(number: int, data: dsl.Input[dsl.Dataset] = None):
        good(reads(data=data))

    assert rules(tmp_path, lambda number: inner(number=number)) == ["optional-artifact"]


def test_a_stage_is_not_given_what_it_does_not_know(tmp_path):
    """As after a field was renamed: the graph was compiled by another version."""
    compile_graph("label_free", config.load(settings=["rounds=1"]), tmp_path / "graph.yaml")
    text = (tmp_path / "graph.yaml").read_text()
    (tmp_path / "old.yaml").write_text(text.replace("mask_ratio", "masked").replace("- ingest\n", "- intake\n"))
    findings = lint(tmp_path / "old.yaml")
    assert {(finding.where, finding.rule) for finding in findings} == {
        ("pretrain", "unknown-parameter"),
        ("ingest", "stage"),
    }
    assert "'masked'" in str(next(finding for finding in findings if finding.where == "pretrain"))


def test_tasks_in_rounds_are_named_with_their_round(tmp_path):
    compile_graph("label_free", config.load(settings=["rounds=2"]), tmp_path / "graph.yaml")
    graph, platform = yaml.safe_load_all((tmp_path / "graph.yaml").read_text())
    del platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-gate-2"]
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump_all([graph, platform]))
    assert [finding.where for finding in lint(tmp_path / "bad.yaml")] == ["em-1/gate", "em-1/gate"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: Workflow", "v1"),
        ("a: [", "not YAML"),
        ("a: 1", "not a compiled pipeline"),
        (None, "No such file"),
    ],
)
def test_what_is_no_compiled_graph_is_refused(text, said, tmp_path):
    if text is not None:
        (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        lint(tmp_path / "x.yaml")


def test_the_command_prints_findings_and_fails(tmp_path, capsys):
    assert main(["compile", "label_free", "-o", str(tmp_path / "graph.yaml")]) == 0
    assert main(["lint", str(tmp_path / "graph.yaml")]) == 0
    text = (tmp_path / "graph.yaml").read_text().replace("memoryLimit", "x").replace("resourceMemoryLimit", "y")
    (tmp_path / "bad.yaml").write_text(text)
    capsys.readouterr()
    assert main(["lint", str(tmp_path / "bad.yaml")]) == 1
    assert "bad.yaml: ingest: error: no memory limit" in capsys.readouterr().out


def test_a_graph_that_is_not_fit_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setenv("CYTOLOOM_REGISTRY", "https://me:hunter2@registry.example")
    monkeypatch.setattr("pipelines.adapter.image_version", lambda: "latest")
    from pipelines import adapter

    adapter.component.cache_clear()
    with pytest.raises(UserError, match="image-tag"):
        compile_graph("label_free", config.load(), tmp_path / "graph.yaml")
    adapter.component.cache_clear()
    assert not (tmp_path / "graph.yaml").exists()
