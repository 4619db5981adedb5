"""The linter: silent on our graphs, and one finding for each fault, in graphs that kfp itself compiles."""

from pathlib import Path

import graphs_for_tests as graphs
import pytest
import yaml
from kfp import compiler, dsl, kubernetes

from pipelines import config
from pipelines.cli import main
from pipelines.graphs import GRAPHS
from pipelines.ir import reader
from pipelines.kubeflow import resources
from pipelines.kubeflow.adapter import image_reference
from pipelines.kubeflow.lint import lint
from shared.system.errors import UserError

IMAGE = "registry.example/lab/image:3f2a91c07be4d865"


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
def configured(number: int, settings: dict, words: list):
    return dsl.ContainerSpec(image=IMAGE, command=["work", number, settings, words])


@dsl.container_component
def with_default(number: int, password: str = "hunter2"):
    return dsl.ContainerSpec(image=IMAGE, command=["work", number, password])


@dsl.container_component
def a_task_whose_name_is_longer_than_a_label_in_kubernetes_may_ever_be_today(number: int):
    return dsl.ContainerSpec(image=IMAGE, command=["work", number])


@dsl.component(base_image=IMAGE)
def program(number: int) -> str:
    def ask(token: str = "") -> str:
        return token

    token = str(number)
    return ask(token=token)


@dsl.component(base_image=IMAGE)
def program_with_secret(number: int) -> str:
    password = "hunter2"
    return password


@dsl.container_component
def login(api_token: str):
    return dsl.ContainerSpec(image=IMAGE, command=["work", api_token])


def good(task, gpu: bool = False, medium: str = "Memory"):
    """Give a task what the linter requires."""
    task.set_memory_limit("1Gi")
    if gpu:
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1)
        kubernetes.empty_dir_mount(task, volume_name="dshm", mount_path="/dev/shm", medium=medium, size_limit="1Gi")
        retried(task, 2, "6h")
    return task


def retried(task, retries: int, window: str, pause: str = "0s"):
    """Give a task a timeout of an hour and retries."""
    task.set_retry(retries, backoff_duration=pause, backoff_max_duration=window)
    return kubernetes.set_timeout(task, 3600)


def running(*command: str):
    """Return a builder of a task with this command."""

    @dsl.container_component
    def runs(number: int):
        return dsl.ContainerSpec(image=IMAGE, command=list(command))

    return lambda number: good(runs(number=number))


def of_image(image: str):
    """Return a builder of a task with this image."""

    @dsl.container_component
    def runs(number: int):
        return dsl.ContainerSpec(image=image, command=["work"])

    return lambda number: good(runs(number=number))


def with_volume(claim: str):
    return lambda number: kubernetes.mount_pvc(good(work(number=number)), claim, "/data")


def with_secret(name: str):
    return lambda number: kubernetes.use_secret_as_env(good(work(number=number)), name, {"A": "A"})


def making_volume(name: str, storage_class: str = "nfs"):
    return lambda number: kubernetes.CreatePVC(
        access_modes=["ReadWriteOnce"], size="1Gi", pvc_name=name, storage_class_name=storage_class
    )


def importing(uri: str):
    return lambda number: dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset)


def rules(tmp_path: Path, build, name: str = "probe") -> list[str]:
    """Return the rules that the pipeline of `build(number)` breaks."""

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
    found = config.load_config(profile=resources.load_profile(profile, cpu_only=cpu_only))
    graphs.compile_named(found, tmp_path / "graph.yaml", graph)
    assert lint(tmp_path / "graph.yaml") == []


def test_a_good_task_is_clean(tmp_path):
    assert rules(tmp_path, lambda number: good(work(number=number), gpu=True)) == []


def without_shm(number):
    task = good(work(number=number))
    retried(task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(1), 2, "6h")


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
        (lambda number: good(work(number=number), gpu=True, medium=""), "shm"),
        (lambda number: good(work(number=number)).set_memory_request("4Gi"), "request"),
        (lambda number: good(work(number=number)).set_memory_request("1024Mi"), None),
        (lambda number: good(work(number=number)).set_cpu_limit("500m").set_cpu_request("1"), "request"),
        (lambda number: good(a_task_whose_name_is_longer_than_a_label_in_kubernetes_may_ever_be_today(number=number)),
         "name"),
    ],
)  # fmt: skip
def test_each_fault_is_found_once(build, expected, tmp_path):
    assert rules(tmp_path, build) == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("retries", "window", "pause", "fits"),
    [
        (2, "6h", "0s", True),
        (2, "21599s", "0s", False),
        (2, "21689s", "30s", False),
        (2, "21690s", "30s", True),
        (1, "600s", "0s", False),
        (0, "600s", "0s", True),
    ],
)
def test_all_attempts_fit_in_the_window(retries, window, pause, fits, tmp_path):
    """Each attempt may run for an hour, and has one more to start."""
    build = lambda number: retried(good(work(number=number)), retries, window, pause)  # noqa: E731
    assert rules(tmp_path, build) == ([] if fits else ["retry-window"])


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (running("sh", "-c", "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY work"), "secret"),
        (running("sh", "-c", "set -e\nexport DB_PASSWORD=letmein\nwork"), "secret"),
        (running("work", "--password", "hunter2"), "secret"),
        (running("work", "--token=abc123secret"), "secret"),
        (running("work", '{"api_key": "abc"}'), "secret"),
        (running("work", "--id", "ASIAABCDEFGHIJKLMNOP"), "secret"),
        (running("git", "clone", "https://me:hunter2@host/x"), "secret"),
        (running("work", "--token-file", "/run/token", "--max-tokens", "512", "--tokenizer", "bert"), None),
        (running("sh", "-c", "work --password $PASSWORD --token=${TOKEN} --use-secret --verbose"), None),
        (lambda number: good(login(api_token=dsl.PIPELINE_JOB_NAME_PLACEHOLDER)), None),
        (lambda number: good(configured(number=number, settings={"db": {"password": "x"}}, words=[])), "secret"),
        (lambda number: good(configured(number=number, settings={}, words=["a", "AKIAABCDEFGHIJKLMNOP"])), "secret"),
        (lambda number: good(configured(number=number, settings={"tokens": "12"}, words=["password"])), None),
        (lambda number: good(with_default(number=number)), "secret"),
        (lambda number: good(program(number=number)), None),
        (lambda number: good(program_with_secret(number=number)), "secret"),
        (importing("https://me:hunter2@host/x"), "secret"),
        (importing("s3://bucket/x"), None),
    ],
)
def test_secrets_are_found_wherever_they_are_and_nothing_else_is(build, expected, tmp_path):
    assert rules(tmp_path, build) == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("image", "fixed"),
    [
        ("python", False),
        ("python:latest", False),
        ("python:3.11", False),  # moves with every patch
        ("chrislusf/seaweedfs:4.48", False),
        ("registry.example:5000/lab/image:v1.2.3", False),
        ("registry.example:5000/lab/image:dev", False),
        ("python@sha256:" + "0" * 64, True),
        ("python:3.11@sha256:" + "0" * 64, True),
        ("python@sha256:0", False),
        (image_reference("torch"), True),
        ("registry.example:5000/lab/image:v1.2.3-3f2a91c", True),
    ],
)
def test_an_image_has_a_digest_or_a_tag_that_is_a_hash(image, fixed, tmp_path):
    assert rules(tmp_path, of_image(image)) == ([] if fixed else ["image-tag"])


@pytest.mark.parametrize(
    ("build", "fine"),
    [
        (with_volume("cytoloom-cache"), True),
        (with_volume("c" * 64), False),  # the volume of the pod is called so as well
        (with_volume("My_Claim"), False),
        (with_volume("my.claim"), False),
        (with_secret("s3.lab"), True),
        (with_secret("s" * 254), False),
        (with_secret("-s3"), False),
        (making_volume("scratch"), True),
        (making_volume("Scratch"), False),
        (making_volume("scratch", "fast disks"), False),
    ],
)
def test_names_are_ones_that_kubernetes_has(build, fine, tmp_path):
    assert rules(tmp_path, build) == ([] if fine else ["name"])


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
    """The graph was compiled by another version, before a field was renamed."""
    graphs.compile_named(config.load_config(settings=["rounds=1"]), tmp_path / "graph.yaml")
    text = (tmp_path / "graph.yaml").read_text()
    (tmp_path / "old.yaml").write_text(text.replace("mask_ratio", "masked").replace("- ingest\n", "- intake\n"))
    findings = lint(tmp_path / "old.yaml")
    assert {(finding.where, finding.rule) for finding in findings} == {
        ("pretrain", "unknown-parameter"),
        ("ingest", "stage"),
    }
    assert "'masked'" in str(next(finding for finding in findings if finding.where == "pretrain"))


def test_tasks_in_rounds_are_named_with_their_round(tmp_path):
    graphs.compile_named(config.load_config(settings=["rounds=2"]), tmp_path / "graph.yaml")
    graph, platform = yaml.safe_load_all((tmp_path / "graph.yaml").read_text())
    del platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-em-1-select-model"]
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump_all([graph, platform]))
    assert [finding.where for finding in lint(tmp_path / "bad.yaml")] == ["em-1/select-model", "em-1/select-model"]


@pytest.mark.parametrize(("number", "fits"), [(152, True), (153, False)])
def test_a_run_fits_into_an_object_of_kubernetes(number, fits, tmp_path):
    def build(value):
        for _ in range(number):
            good(work(number=value))

    assert rules(tmp_path, build) == ([] if fits else ["size"])


def test_too_many_rounds_are_refused_for_a_cluster(tmp_path, capsys):
    path = tmp_path / "graph.yaml"
    assert main(["compile", "label_free", "--set", "rounds=25", "-o", str(path)]) == 1
    said = capsys.readouterr().err
    assert "156 tasks" in said and "by fewer rounds [size]" in said and not path.exists()


def test_no_two_tasks_of_a_run_have_the_same_name(tmp_path):
    """The UI looks for a task's page by its name, in all nested pipelines."""

    @dsl.pipeline
    def inner(number: int):
        good(work(number=number))

    def build(number):
        inner(number=number)
        inner(number=number).set_display_name("again")

    assert rules(tmp_path, build) == ["task-name"]
    (finding,) = lint(tmp_path / "probe.yaml")
    assert finding.where == "again/work" and "'work' like inner/work" in finding.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: Workflow", "v1"),
        ("a: [", "not YAML"),
        ("a: 1", "not a compiled pipeline"),
        ("{pipelineInfo: null, root: null, deploymentSpec: null}", "not a compiled pipeline"),
        ("{pipelineInfo: {name: x}, root: {dag: {tasks: {a: null}}}, deploymentSpec: {}}", "damaged"),
        ("{pipelineInfo: {name: 3}, root: {dag: {tasks: {}}}, deploymentSpec: {}}", "not a compiled"),
        ("{pipelineInfo: {name: x}, root: {dag: {tasks: {a: {}}}}, deploymentSpec: {}}", "damaged"),
        ("{pipelineInfo: {name: x}, root: [], deploymentSpec: {}}", "not a compiled pipeline"),
        ("\x00", "not YAML"),
        (None, "No such file"),
    ],
)
def test_what_is_no_compiled_graph_is_refused(text, said, tmp_path):
    if text is not None:
        (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        lint(tmp_path / "x.yaml")
    with pytest.raises(UserError):
        reader.read(tmp_path / "x.yaml")


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
    monkeypatch.setattr("pipelines.kubeflow.adapter.image_version", lambda: "latest")
    from pipelines.kubeflow import adapter

    adapter.component.cache_clear()
    with pytest.raises(UserError, match="image-tag"):
        graphs.compile_named(config.load_config(), tmp_path / "graph.yaml")
    adapter.component.cache_clear()
    assert not (tmp_path / "graph.yaml").exists()
