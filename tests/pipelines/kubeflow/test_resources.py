"""What a cluster is asked for: the table, and profiles that change it."""

import doctest
import re

import graphs_for_tests as graphs
import pytest
import yaml
from real_labels import ROOT

from components.registry import names
from pipelines import config
from pipelines.ir import reader
from pipelines.kubeflow import quantities, resources, retries
from pipelines.kubeflow.quantities import amount
from pipelines.kubeflow.resources import IMAGE_USER, RESOURCES, TRAINING, load_profile
from shared.stage.import_closure import import_closure
from shared.system.errors import UserError

KINDS = ("classifier", "detector", "segmentor")


def compiled(tmp_path, text: str = "", cpu_only: bool = False):
    """(graph, settings of Kubernetes by executor) of the label-free pipeline for a profile."""
    (tmp_path / "profile.yaml").write_text(text)
    profile = load_profile(tmp_path / "profile.yaml", cpu_only=cpu_only)
    graphs.compile_named(config.load_config(settings=["rounds=1"], profile=profile), tmp_path / "graph.yaml")
    graph, *platform = yaml.safe_load_all((tmp_path / "graph.yaml").read_text())
    return graph, platform[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def container(graph, stage):
    return graph["deploymentSpec"]["executors"][f"exec-{stage}"]["container"]


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
    pretrain, select = (container(graph, stage)["resources"] for stage in ("pretrain", "em-0-select-model"))
    assert pretrain["accelerator"]["resourceCount"] == "2" and pretrain["resourceMemoryLimit"] == "64Gi"
    assert select["accelerator"] == {
        **select["accelerator"],
        "resourceType": "nvidia.com/mig-1g.10gb",
        "resourceCount": "1",
    }
    tasks = graph["root"]["dag"]["tasks"]
    assert not tasks["pretrain"]["cachingOptions"] and tasks["ingest"]["cachingOptions"]["enableCache"]
    for stage in ("ingest", "em-0-select-model"):
        own = settings[f"exec-{stage}"]
        assert own["nodeSelector"]["labels"] == {"pool": "gpu"}
        assert own["tolerations"][0]["key"] == "nvidia.com/gpu" and own["tolerations"][0]["operator"] == "Exists"
        secret = own["secretAsEnv"][0]
        assert secret["secretName"] == "lab-s3" and secret["optional"]
        assert {item["envVar"] for item in secret["keyToEnv"]} == set(resources.SECRET_KEYS)


CLAIMS = "{cache: lab-cache, checkpoints: lab-checkpoints}"
FOR_CACHE = {"lab-cache": "/cache"}
FOR_CHECKPOINTS = {"lab-checkpoints": "/checkpoints"}
LABEL_FREE = {"ingest": FOR_CACHE, "pretrain": FOR_CHECKPOINTS, "em-0-train-segmentor": FOR_CHECKPOINTS}
WEIGHTS = "pretrain.weights=s3://lab/weights.safetensors"


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("label_free", ["rounds=1"], LABEL_FREE),
        ("label_free", ["rounds=1", WEIGHTS], {**LABEL_FREE, "pretrain": {**FOR_CACHE, **FOR_CHECKPOINTS}}),
        ("infer", [], {"ingest": FOR_CACHE, **{f"import-{kind}": FOR_CACHE for kind in KINDS}}),
    ],
)
def test_a_claim_is_mounted_where_it_is_used_and_nowhere_else(name, settings, expected, tmp_path):
    """Every pod waits for the claims that it mounts."""
    (tmp_path / "profile.yaml").write_text(CLAIMS)
    profile = load_profile(tmp_path / "profile.yaml")
    graphs.compile_named(config.load_config(settings=settings, profile=profile), tmp_path / "graph.yaml", name)
    graph, platform = yaml.safe_load_all((tmp_path / "graph.yaml").read_text())
    mounts, paths = {}, {}
    for label, own in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].items():
        if found := own.get("pvcMount"):
            mounts[label.removeprefix("exec-")] = {mount["constant"]: mount["mountPath"] for mount in found}
    for label, executor in graph["deploymentSpec"]["executors"].items():
        if found := executor["container"].get("env"):
            paths[label.removeprefix("exec-")] = {item["name"]: item["value"] for item in found}
    assert mounts == expected
    variables = {"/cache": "CYTOLOOM_CACHE", "/checkpoints": "CYTOLOOM_CHECKPOINTS"}
    assert paths == {task: {variables[path]: path for path in own.values()} for task, own in expected.items()}


def test_training_stages_are_those_that_write_checkpoints():
    writer = ROOT / "shared" / "training" / "checkpoint.py"
    assert set(TRAINING) == {stage for stage in names() if writer in import_closure(ROOT, f"components.{stage}")}


def test_a_profile_sets_labels_and_a_volume_of_the_tasks_own(tmp_path):
    text = "{all: {storage: 50Gi}, gpu_stages: {labels: {kueue.x-k8s.io/queue-name: lab}, storage_class: fast}}"
    _, settings = compiled(tmp_path, text)
    (volume,) = settings["exec-ingest"]["genericEphemeralVolume"]
    assert (volume["mountPath"], volume["size"], volume["defaultStorageClass"]) == ("/s3", "50Gi", True)
    assert "podMetadata" not in settings["exec-ingest"]
    (volume,) = settings["exec-pretrain"]["genericEphemeralVolume"]
    assert volume["storageClassName"] == "fast" and not volume.get("defaultStorageClass")
    assert settings["exec-pretrain"]["podMetadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "lab"}


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("", None),
        ("kubeflow: 2.15.2", None),
        ("kubeflow: 2.16.0", IMAGE_USER),
        ("kubeflow: 2.100.0", IMAGE_USER),
        ("{kubeflow: 2.16.0, run_as_user: 1234}", 1234),
        ("{kubeflow: 2.16.0, run_as_user: image}", None),
    ],
)
def test_pods_declare_their_user_where_kubeflow_can(text, user, tmp_path):
    (tmp_path / "profile.yaml").write_text(text)
    settings = config.load_config(profile=load_profile(tmp_path / "profile.yaml"))
    graphs.compile_named(settings, tmp_path / "graph.yaml", "classifier")
    _, platform = yaml.safe_load_all((tmp_path / "graph.yaml").read_text())
    for own in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
        expected = {"runAsUser": str(user), "runAsNonRoot": True} if user else None
        assert own.get("securityContext") == expected


def test_the_declared_user_is_the_images():
    users = re.findall(r"^USER (\d+)", (ROOT / "docker" / "Dockerfile").read_text(), re.M)
    assert set(users) == {str(IMAGE_USER)}


def test_what_is_for_gpu_nodes_is_for_stages_with_a_gpu(tmp_path):
    text = "{gpu_stages: {tolerations: [{key: nvidia.com/gpu}], memory: 24Gi}, stages: {pretrain: {memory: 64Gi}}}"
    graph, settings = compiled(tmp_path, text)
    for stage, memory, tolerates in (
        ("ingest", "4Gi", False),
        ("em-0-select-model", "24Gi", True),
        ("pretrain", "64Gi", True),
    ):
        assert container(graph, stage)["resources"]["resourceMemoryLimit"] == memory
        assert ("tolerations" in settings[f"exec-{stage}"]) == tolerates
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
        ("kubeflow: 2.16", "kubeflow: .*three numbers"),
        ("kubeflow: 2.14.3", "kubeflow: .*too old; 2.15.0 or newer"),
        ("{kubeflow: 2.15.0, run_as_user: 1234}", "run_as_user: .*2.15.0 cannot declare it, 2.16.0 can"),
        ("{kubeflow: 2.16.0, run_as_user: 0}", "run_as_user"),
        ("{kubeflow: 2.16.0, run_as_user: true}", "run_as_user"),
        ("all: {labels: {queue: a queue}}", "labels.queue: .*letters"),
        ("all: {labels: {queue: %s}}" % ("q" * 64), "labels.queue: .*63"),
        ("all: {node_selector: {pool: -gpu}}", "node_selector.pool"),
        ("all: {storage: much}", "storage: .*quantity"),
        ("a: [", "not YAML"),
    ],
)
def test_a_wrong_profile_is_refused_by_file_and_field(text, said, tmp_path):
    (tmp_path / "profile.yaml").write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        load_profile(tmp_path / "profile.yaml")
    assert "profile.yaml" in str(caught.value)
