"""Every stage as a Kubeflow component: its signature is the declaration's, whatever stages there are."""

import graphs_for_tests as graphs
import pytest
from kfp import dsl

from components.registry import declaration, names
from pipelines.kubeflow.adapter import component, image_reference
from pipelines.kubeflow.resources import RESOURCES, Resources
from shared.stage.declaration import Stage
from shared.stage.version import image_version
from shared.stage.wire import plain_type, to_wire

WIRE = {
    bool: "BOOLEAN",
    int: "NUMBER_INTEGER",
    float: "NUMBER_DOUBLE",
    str: "STRING",
    list: "LIST",
    dict: "STRUCT",
}


@pytest.fixture(params=names())
def stage(request) -> type[Stage]:
    return declaration(request.param)


@pytest.fixture
def spec(stage) -> dict:
    """The component as kfp compiles it."""
    from google.protobuf import json_format

    return json_format.MessageToDict(component(stage, stage.image).pipeline_spec)


def only_component(spec: dict) -> dict:
    (found,) = spec["components"].values()
    return found


def test_artifacts_in_and_out_are_those_declared(stage, spec):
    inputs, outputs = (only_component(spec).get(key, {}) for key in ("inputDefinitions", "outputDefinitions"))
    for direction, section in (("in", inputs), ("out", outputs)):
        declared = {
            name: f"system.{port.kind.kfp_type}" for name, port in stage.ports(direction).items() if not port.is_value
        }
        compiled = {name: item["artifactType"]["schemaTitle"] for name, item in section.get("artifacts", {}).items()}
        assert compiled == declared
        optional = {name for name, item in section.get("artifacts", {}).items() if item.get("isOptional")}
        assert optional == {name for name, port in stage.ports(direction).items() if port.optional}


def test_output_parameters_are_those_declared(stage, spec):
    outputs = only_component(spec).get("outputDefinitions", {})
    declared = {name: WIRE[port.kind] for name, port in stage.ports("out").items() if port.is_value}
    assert {name: item["parameterType"] for name, item in outputs.get("parameters", {}).items()} == declared


def test_parameters_have_the_declared_types_and_defaults(stage, spec):
    compiled = only_component(spec).get("inputDefinitions", {}).get("parameters", {})
    assert set(compiled) == set(stage.parameters())
    for name, field in stage.parameters().items():
        assert compiled[name]["parameterType"] == WIRE[plain_type(field)]
        assert compiled[name].get("isOptional", False) == (not field.is_required())
        if not field.is_required():
            assert compiled[name]["defaultValue"] == to_wire(field, field.get_default(call_default_factory=True))


def test_the_container_runs_the_stage_in_its_image(stage, spec):
    (executor,) = spec["deploymentSpec"]["executors"].values()
    container = executor["container"]
    assert container["command"] == ["python", "-m", "components", stage.slug(), "--executor-input", "{{$}}"]
    assert container["image"] == image_reference(stage.image)


def test_the_registry_comes_from_the_environment_and_the_tag_from_the_code(monkeypatch):
    monkeypatch.delenv("CYTOLOOM_REGISTRY", raising=False)
    assert image_reference("torch") == f"cytoloom/torch:{image_version()}"
    monkeypatch.setenv("CYTOLOOM_REGISTRY", "registry.example/lab")
    assert image_reference("torch") == f"registry.example/lab/torch:{image_version()}"


@pytest.mark.parametrize(("gpus", "target"), [(0, "cpu"), (1, "faiss")])
def test_a_stage_that_is_given_a_gpu_runs_in_the_image_that_can_use_it(gpus, target, tmp_path):
    import yaml

    from pipelines.config import Config
    from pipelines.kubeflow import resources

    profile = resources.Profile(stages={"cluster": {"gpu": gpus}})
    graphs.compile_named(Config(1, profile=profile), tmp_path / "graph.yaml")
    graph, _ = yaml.safe_load_all((tmp_path / "graph.yaml").read_text())
    containers = [executor["container"] for executor in graph["deploymentSpec"]["executors"].values()]
    (cluster,) = [container for container in containers if "cluster" in container["command"]]
    assert cluster["image"] == image_reference(target)


def test_resources_name_stages_that_exist():
    assert set(RESOURCES) <= set(names())


def test_a_gpu_is_asked_for_by_type_and_number_and_shared_memory_by_a_mount(monkeypatch, tmp_path):
    """A limit without a type does nothing in Kubeflow, and /dev/shm is 64 MiB unless mounted."""
    import yaml
    from kfp import compiler

    from pipelines.kubeflow import resources
    from pipelines.kubeflow.task_settings import apply_settings

    monkeypatch.setitem(resources.RESOURCES, "probe", Resources(gpu=1, memory="3Gi", shm="1Gi", retries=4))

    @dsl.container_component
    def probe():
        return dsl.ContainerSpec(image="x", command=["true"])

    @dsl.pipeline(name="probe")
    def pipeline():
        apply_settings(probe(), "probe")

    compiler.Compiler().compile(pipeline, str(tmp_path / "probe.yaml"))
    graph, platform = yaml.safe_load_all((tmp_path / "probe.yaml").read_text())
    asked = graph["deploymentSpec"]["executors"]["exec-probe"]["container"]["resources"]
    assert asked["accelerator"]["resourceType"] == "nvidia.com/gpu" and asked["accelerator"]["resourceCount"] == "1"
    assert asked["resourceMemoryLimit"] == "3Gi"
    assert graph["root"]["dag"]["tasks"]["probe"]["retryPolicy"]["maxRetryCount"] == 4
    (mount,) = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-probe"]["emptyDirMounts"]
    assert mount["mountPath"] == "/dev/shm" and mount["medium"] == "Memory" and mount["sizeLimit"] == "1Gi"
