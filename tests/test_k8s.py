"""The manifests: kustomize builds every overlay, the schema of Kubernetes accepts it, and nothing in it dangles."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from real_labels import ROOT

from pipelines.cli_parser import build_parser
from pipelines.kubeflow import resources
from pipelines.kubeflow.quantities import QUANTITY

K8S = ROOT / "k8s"
OVERLAYS = sorted(path.parent.name for path in K8S.glob("overlays/*/kustomization.yaml"))
FROM_OUTSIDE = {("Secret", "cytoloom-s3"), ("Secret", "mlpipeline-minio-artifact")}
"""The first one is made by hand from the example, the second is Kubeflow's."""


def built(overlay: str) -> str:
    """What `kubectl apply -k` would send."""
    assert shutil.which("kubectl"), "kubectl is missing; on Debian: apt-get install kubernetes-client"
    done = kustomized(K8S / "overlays" / overlay)
    if "must be a file" in done.stderr:
        done = by_old_kubectl(overlay)
    assert done.returncode == 0, done.stderr
    return done.stdout


def kustomized(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True)


def by_old_kubectl(overlay: str) -> subprocess.CompletedProcess[str]:
    """Before 1.21 (Debian 12 has 1.20) folders were not `resources` but `bases`; the rest was as it is."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(K8S, Path(folder) / "k8s"))
        for file in copy.rglob("kustomization.yaml"):
            content = yaml.safe_load(file.read_text())
            folders = [name for name in content["resources"] if (file.parent / name).is_dir()]
            content["resources"] = [name for name in content["resources"] if name not in folders]
            file.write_text(yaml.safe_dump(content | {"bases": folders}))
        return kustomized(copy / "overlays" / overlay)


@pytest.fixture(scope="module", params=OVERLAYS)
def manifests(request) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(built(request.param)))


def walk(value: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """Every (path, value) within."""
    yield path, value
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from walk(inner, (*path, key))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_schema_of_kubernetes_accepts_it(overlay, tmp_path):
    (tmp_path / "all.yaml").write_text(built(overlay))
    validate = Path(sys.executable).with_name("kubernetes-validate")
    done = subprocess.run([validate, "--strict", tmp_path / "all.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_example_of_a_secret_is_one_and_holds_none():
    secret = yaml.safe_load((K8S / "s3-secret.example.yaml").read_text())
    assert secret["kind"] == "Secret" and ("Secret", secret["metadata"]["name"]) in FROM_OUTSIDE
    assert set(secret["stringData"]) <= set(resources.SECRET_KEYS)
    keys = [value for name, value in secret["stringData"].items() if "KEY" in name]
    assert keys == ["CHANGE-ME", "CHANGE-ME"]


def test_everything_is_in_one_namespace(manifests):
    assert {item["metadata"]["namespace"] for item in manifests} == {"kubeflow"}


def test_quantities_are_some(manifests):
    """The schema takes any string."""
    sizes = [
        (path, text)
        for item in manifests
        for path, value in walk(item)
        if path and path[-1] in ("limits", "requests") and isinstance(value, dict)
        for text in value.values()
    ]
    assert sizes and all(QUANTITY.fullmatch(str(text)) for _, text in sizes), sizes


def test_what_is_referred_to_is_there(manifests):
    known = {(item["kind"], item["metadata"]["name"]) for item in manifests} | FROM_OUTSIDE
    for item in manifests:
        for path, value in walk(item):
            if path and path[-1] == "claimName":
                assert ("PersistentVolumeClaim", value) in known
            if path and path[-1] in ("secretRef", "secretKeyRef"):
                assert ("Secret", value["name"]) in known
            if path and path[-1] in ("configMapRef", "configMapKeyRef"):
                assert ("ConfigMap", value["name"]) in known
            if path and path[-1] == "serviceAccountName":
                assert ("ServiceAccount", value) in known
            if path and path[-1] == "resourceNames":
                assert all({("Secret", name), ("ConfigMap", name)} & known for name in value)
        if item["kind"] == "RoleBinding":
            assert (item["roleRef"]["kind"], item["roleRef"]["name"]) in known
            assert all((subject["kind"], subject["name"]) in known for subject in item["subjects"])
            assert all(subject["namespace"] == item["metadata"]["namespace"] for subject in item["subjects"])
        if item["kind"] == "Service":
            pods = [other["spec"]["template"] for other in manifests if other["kind"] == "Deployment"]
            chosen = [pod for pod in pods if item["spec"]["selector"].items() <= pod["metadata"]["labels"].items()]
            ports = {port["name"] for pod in chosen for part in pod["spec"]["containers"] for port in part["ports"]}
            assert chosen and {port["targetPort"] for port in item["spec"]["ports"]} <= ports


def test_pods_are_restarted_run_as_nobody_and_stay_within_limits(manifests):
    for item in manifests:
        if item["kind"] != "Deployment":
            continue
        pod = item["spec"]["template"]["spec"]
        assert pod.get("restartPolicy", "Always") == "Always"
        assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
        for container in pod["containers"]:
            assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
            assert not container["securityContext"]["allowPrivilegeEscalation"]
            assert set(container["resources"]["limits"]) == {"cpu", "memory"}
            assert re.search(r":\d", container["image"]) and not container["image"].endswith(":latest")
            assert "nvidia.com/gpu" not in container["resources"].get("requests", {})


def test_no_rule_says_everything(manifests):
    for item in manifests:
        if item["kind"] == "Role":
            said = [
                word for rule in item["rules"] for field in ("verbs", "resources", "apiGroups") for word in rule[field]
            ]
            assert "*" not in said
            secrets = [rule for rule in item["rules"] if "secrets" in rule["resources"]]
            assert all(rule.get("resourceNames") for rule in secrets)


def test_the_launcher_finds_bucket_and_keys(manifests):
    (launcher,) = (item for item in manifests if item["metadata"]["name"] == "kfp-launcher")
    assert launcher["data"]["defaultPipelineRoot"].startswith("s3://")
    found = yaml.safe_load(launcher["data"]["providers"])["s3"]["default"]
    keys = found["credentials"]["secretRef"]
    assert ("Secret", keys["secretName"]) in FROM_OUTSIDE
    assert {keys["accessKeyKey"], keys["secretKeyKey"]} <= set(resources.SECRET_KEYS)
    assert "://" not in found["endpoint"]  # host and port alone: disableSSL says which protocol
    host, _, port = found["endpoint"].partition(":")
    name, *domain = host.split(".")
    if domain[1:2] == ["svc"]:  # in the cluster: then the overlay makes it
        services = [item for item in manifests if item["kind"] == "Service" and item["metadata"]["name"] == name]
        assert [item["metadata"]["namespace"] for item in services] == domain[:1]
        assert int(port) in [served["port"] for item in services for served in item["spec"]["ports"]]
        secret = yaml.safe_load((K8S / "s3-secret.example.yaml").read_text())
        assert secret["stringData"]["AWS_ENDPOINT_URL"] == f"http://{found['endpoint']}" and found["disableSSL"]
    else:
        assert len(domain) > 1 and not found["disableSSL"]
        assert not [item for item in manifests if item["kind"] in ("Service", "Deployment")]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_profile_names_what_the_overlay_makes(overlay):
    profile = resources.load_profile(K8S / "overlays" / overlay / "profile.yaml")
    known = {(item["kind"], item["metadata"]["name"]) for item in yaml.safe_load_all(built(overlay))}
    for claim in (profile.cache, profile.checkpoints):
        assert ("PersistentVolumeClaim", claim) in known
    assert ("Secret", profile.secret) in FROM_OUTSIDE and ("ServiceAccount", profile.service_account) in known
    assert profile.kubeflow in re.findall(r"^export VERSION=(\S+)", "\n".join(COMMANDS), re.M)
    assert any(row.gpu for row in profile.rows.values()) == (overlay == "gpu")
    assert not any(row.tolerations for row in profile.rows.values() if not row.gpu)
    assert all(row.tolerations for row in profile.rows.values() if row.gpu)


# --- the README's commands ----------------------------------------------------------------------------------------

BLOCKS = re.findall(r"^```sh\n(.*?)^```", (K8S / "README.md").read_text(), re.M | re.S)
COMMANDS = "".join(BLOCKS).replace("\\\n", " ").splitlines()


def test_the_commands_are_ones_that_exist():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    asked = {word for line in COMMANDS for word in re.findall(r"\bmake (?:-s )?([a-z-]+)", line)}
    assert {"venv", "deploy", "push", "images"} <= asked <= targets
    ours = [shlex.split(line, comments=True)[1:] for line in COMMANDS if line.startswith("cytoloom ")]
    assert {build_parser().parse_args(words).command for words in ours} == {"submit", "compile", "lint"}
    for path in re.findall(r"k8s/[\w./-]+", "\n".join(COMMANDS)):
        assert (ROOT / path).exists() or path == "k8s/s3-secret.yaml", path
    for block in BLOCKS:
        assert subprocess.run(["bash", "-n"], input=block, text=True).returncode == 0, block


def run_offline(*blocks: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run blocks of the README with a kubectl and a make that print their arguments, one a line."""
    stubs = 'set -e\nkubectl() { printf \'%s\\n\' "$@"; }\nmake() { kubectl make "$@"; }\n'
    command = ["bash", "-c", stubs + "\n".join(blocks)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)


def test_the_patch_of_runs_has_containers_retried_and_volumes_writable(tmp_path):
    (block,) = (block for block in BLOCKS if "SPEC_PATCH=" in block)
    words = run_offline(block, folder=tmp_path).stdout.splitlines()
    name = "COMPILED_PIPELINE_SPEC_PATCH="
    (patch,) = (json.loads(word.removeprefix(name)) for word in words if word.startswith(name))
    strategy = patch["templateDefaults"]["retryStrategy"]
    assert strategy == {"retryPolicy": "Always", "limit": "0"}, "any other limit holds for nested graphs as well"
    pod = json.loads(patch["podSpecPatch"])  # which Argo takes as a text
    assert pod["securityContext"]["fsGroup"] == resources.IMAGE_USER


PROFILES = re.findall(r"^\|.*\| `([^`]*: [^`]*)`", (K8S / "README.md").read_text(), re.M)


@pytest.mark.parametrize("text", PROFILES)
def test_the_examples_of_profiles_are_some(text, tmp_path):
    (tmp_path / "profile.yaml").write_text(text if "kubeflow" in text else f"kubeflow: 2.17.0\n{text}")
    assert resources.load_profile(tmp_path / "profile.yaml") != resources.Profile(kubeflow="2.17.0")


def test_there_are_examples_of_profiles():
    assert len(PROFILES) == 6


def test_the_filled_in_secret_is_one_and_git_ignores_it(tmp_path):
    blocks = [block for block in BLOCKS if "openssl " in block or "sed " in block]
    shutil.copytree(K8S, tmp_path / "k8s")
    done = run_offline(*blocks, "printenv AWS_SECRET_ACCESS_KEY", folder=tmp_path)
    filled = yaml.safe_load((tmp_path / "k8s/s3-secret.yaml").read_text())
    example = yaml.safe_load((K8S / "s3-secret.example.yaml").read_text())
    values = filled["stringData"]
    assert values["AWS_SECRET_ACCESS_KEY"] == done.stdout.splitlines()[-1] and len(values["AWS_ACCESS_KEY_ID"]) == 20
    assert all(isinstance(value, str) for value in values.values())
    keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "CHANGE-ME")
    assert {**filled, "stringData": {**values, **keys}} == example
    rules = (ROOT / ".gitignore").read_text().split()
    assert "s3-secret.yaml" in rules  # of any folder


def test_the_bucket_is_made_and_the_images_are_in_it(s3_server, s3, tmp_path):
    (command,) = (shlex.split(line, comments=True) for line in COMMANDS if "upload.py" in line)
    bucket = f"new-{uuid.uuid4().hex[:8]}"
    (tmp_path / "plate 1").mkdir()
    (tmp_path / "plate 1/a.tif").write_bytes(b"one")
    (tmp_path / "b.tif").write_bytes(b"two")
    (tmp_path / ".hidden").write_bytes(b"not sent")
    words = [str(tmp_path) if word == "DIR" else word.replace("s3://cytoloom/", f"s3://{bucket}/") for word in command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *words[1:], *more]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)

    for _ in range(2):  # the second time the bucket is there
        done = run()
        assert done.returncode == 0 and done.stdout == f"2 files in s3://{bucket}/images\n", done.stderr
    names = {item.object_name for item in s3_server.client().list_objects(bucket, recursive=True)}
    assert names == {"images/b.tif", "images/plate 1/a.tif"}
    assert run("too many").stderr.startswith("usage: ")
    environment["AWS_SECRET_ACCESS_KEY"] = "wrong"
    assert run().returncode == 1 and "refused the keys" in run().stderr
