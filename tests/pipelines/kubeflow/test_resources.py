"""What a cluster is asked for: the table, and profiles that change it."""

import doctest

import graphs_for_tests as graphs
import pytest
import yaml

from components.registry import names
from pipelines import config
from pipelines.ir import reader
from pipelines.kubeflow import quantities, resources, retries
from pipelines.kubeflow.quantities import amount
from pipelines.kubeflow.resources import RESOURCES, load_profile
from shared.system.errors import UserError


def compiled(tmp_path, text: str = "", cpu_only: bool = False):
    """(graph, settings of Kubernetes by executor) of the label-free pipeline for a profile."""
    (tmp_path / "profile.yaml").write_text(text)
    profile = load_profile(tmp_path / "profile.yaml", cpu_only=cpu_only)
    graphs.compile_named(config.load_config(settings=["rounds=1"], profile=profile), tmp_path / "graph.yaml")
    graph, *platform = yaml.safe_load_all((tmp_path / "graph.yaml").read_text())
    return graph, platform[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def container(graph, stage):
    return graph["deploymentSpec"]["executors"][f"exec-{stage.replace('_', '-')}"]["container"]


def test_every_stage_has_a_row():
    assert set(RESOURCES) == set(names())


def test_requests_limits_retries_and_timeouts_are_set(tmp_path):
    graph, settings = compiled(tmp_path)
    asked = container(graph, "pretrain")["resources"]
    assert (asked["resourceMemoryLimit"], asked["resourceMemoryRequest"]) == ("16Gi", "16Gi")
    assert (asked["resourceCpuLimit"], asked["resourceCpuRequest"]) == ("8", "250m")
    assert asked["accelerator"]["resourceType"] == "nvidia.com/gpu" and asked["accelerator"]["resourceCount"] == "1"
    policy = graph["root"]["dag"]["tasks"]["pretrain"]["retryPolicy"]
    assert policy == {
        "maxRetryCount": 3,
        "backoffDuration": "30s",
        "backoffFactor": 2.0,
        "backoffMaxDuration": f"{4 * 25 * 3600 + 30 + 60 + 120}s",
    }
    assert int(settings["exec-pretrain"]["activeDeadlineSeconds"]) == 24 * 3600
    assert "accelerator" not in container(graph, "ingest")["resources"]
    assert "secretAsEnv" not in settings["exec-ingest"] and "pvcMount" not in settings["exec-ingest"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("{retries: 2, timeout: 60}", 3 * (60 + 3600) + 30 + 60),
        ("{retries: 1, timeout: 60, backoff: 5m}", 2 * (60 + 3600) + 300),
        ("{retries: 10, timeout: 172800, backoff: 1s}", 11 * (172800 + 3600) + 1023),
    ],
)
def test_every_attempt_fits_in_the_window_that_a_profile_leads_to(fields, expected, tmp_path):
    """Argo counts it from the start of the first attempt, pauses included."""
    graph, _ = compiled(tmp_path, f"all: {fields}")
    assert graph["root"]["dag"]["tasks"]["pretrain"]["retryPolicy"]["backoffMaxDuration"] == f"{expected}s"


def test_a_profile_changes_all_stages_or_one(tmp_path):
    graph, settings = compiled(
        tmp_path,
        """
        secret: lab-s3
        cache: lab-cache
        checkpoints: lab-checkpoints
        all: {gpu_type: nvidia.com/mig-1g.10gb, node_selector: {pool: gpu}, tolerations: [{key: nvidia.com/gpu}]}
        gpu_stages: {shm: 1Gi}
        stages: {pretrain: {gpu: 2, memory: 64Gi, caching: false}}
        """,
    )
    pretrain, select = (container(graph, stage)["resources"] for stage in ("pretrain", "select_model"))
    assert pretrain["accelerator"]["resourceCount"] == "2" and pretrain["resourceMemoryLimit"] == "64Gi"
    assert select["accelerator"] == {
        **select["accelerator"],
        "resourceType": "nvidia.com/mig-1g.10gb",
        "resourceCount": "1",
    }
    tasks = graph["root"]["dag"]["tasks"]
    assert not tasks["pretrain"]["cachingOptions"] and tasks["ingest"]["cachingOptions"]["enableCache"]
    for stage in ("ingest", "select_model"):
        own = settings[f"exec-{stage.replace('_', '-')}"]
        assert own["nodeSelector"]["labels"] == {"pool": "gpu"}
        assert own["tolerations"][0]["key"] == "nvidia.com/gpu" and own["tolerations"][0]["operator"] == "Exists"
        secret = own["secretAsEnv"][0]
        assert secret["secretName"] == "lab-s3" and secret["optional"]
        assert {item["envVar"] for item in secret["keyToEnv"]} == set(resources.SECRET_KEYS)
        assert {mount["mountPath"]: mount["constant"] for mount in own["pvcMount"]} == {
            "/cache": "lab-cache",
            "/checkpoints": "lab-checkpoints",
        }
        env = {item["name"]: item["value"] for item in container(graph, stage)["env"]}
        assert env == {"CYTOLOOM_CACHE": "/cache", "CYTOLOOM_CHECKPOINTS": "/checkpoints"}


def test_what_is_for_gpu_nodes_is_for_stages_with_a_gpu(tmp_path):
    text = "{gpu_stages: {tolerations: [{key: nvidia.com/gpu}], memory: 24Gi}, stages: {pretrain: {memory: 64Gi}}}"
    graph, settings = compiled(tmp_path, text)
    for stage, memory, tolerates in (
        ("ingest", "4Gi", False),
        ("select_model", "24Gi", True),
        ("pretrain", "64Gi", True),
    ):
        assert container(graph, stage)["resources"]["resourceMemoryLimit"] == memory
        assert ("tolerations" in settings[f"exec-{stage.replace('_', '-')}"]) == tolerates
    _, settings = compiled(tmp_path, text, cpu_only=True)
    assert not any("tolerations" in own for own in settings.values())


def test_no_more_is_requested_than_is_allowed(tmp_path):
    graph, _ = compiled(tmp_path, "all: {cpu: 100m}")
    assert container(graph, "ingest")["resources"]["resourceCpuRequest"] == "100m"


@pytest.mark.parametrize(
    ("less", "more"),
    [("999m", "1"), ("1k", "1Ki"), ("976Ki", "1M"), ("1.5Gi", "1.6Gi"), ("900Mi", "1Gi"), ("1G", "1Gi"), ("9E", "9Ei")],
)
def test_quantities_compare_as_kubernetes_has_them(less, more):
    assert amount(less) < amount(more)


@pytest.mark.parametrize("module", [quantities, retries])
def test_the_examples_in_docstrings_hold(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


def test_a_cluster_without_gpus_is_asked_for_none(tmp_path):
    graph, _ = compiled(tmp_path, cpu_only=True)
    executors = graph["deploymentSpec"]["executors"].values()
    assert all("accelerator" not in executor["container"]["resources"] for executor in executors)


def test_a_graph_for_a_cluster_runs_here_with_the_folders_of_this_machine(tmp_path):
    compiled(tmp_path, "{cache: lab-cache, checkpoints: lab-checkpoints}")
    graph = reader.read(tmp_path / "graph.yaml")
    assert all(not task.env for task in graph.tasks.values())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("stages: {pretain: {gpu: 2}}", "stages.pretain: no such stage; did you mean pretrain"),
        ("stages: {pretrain: {gpus: 2}}", "gpus: Extra inputs"),
        ("stages: {pretrain: {memory: 16 GB}}", "memory: .*quantity"),
        ('all: {memory: ""}', "memory: .*quantity"),
        ("all: {memory: 1Gi, memory_request: 4Gi}", "memory_request: .*more than the limit 1Gi"),
        ("stages: {cluster: {cpu_request: 9}}", "cpu_request"),
        ('stages: {cluster: {cpu_request: "9"}}', "cpu_request: .*more than the limit 8"),
        ("all: {backoff: soon}", "backoff: .*duration"),
        ("all: {retries: 11}", "retries: .*less than or equal to 10"),
        ("gpu_stages: {toleration: []}", "toleration: Extra inputs"),
        ("{1: 2}", "not a mapping"),
        ("all: {tolerations: [{kye: x}]}", "tolerations.0.key"),
        ("secrets: x", "secrets: Extra inputs"),
        ("[1, 2]", "not a mapping"),
        ("a: [", "not YAML"),
    ],
)
def test_a_wrong_profile_is_refused_by_file_and_field(text, said, tmp_path):
    (tmp_path / "profile.yaml").write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        load_profile(tmp_path / "profile.yaml")
    assert "profile.yaml" in str(caught.value)
