"""The images of the stages, built and run by a real engine, as hardened as a cluster may ask for."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tifffile
from small_segmentor import write_images, write_model

from components.registry import declaration, names, targets
from shared.artifacts.kinds import ImageSet, Model
from shared.artifacts.manifest import verify
from shared.stage.version import code_version, image_version

ROOT = Path(__file__).parents[1]
HARDENED = ("--network=none", "--read-only", "--user=10001", "--cap-drop=ALL", "--security-opt=no-new-privileges")
MODULES = {
    "imagecodecs": "imagecodecs",
    "opencv-contrib-python-headless": "cv2",
    "scikit-image": "skimage",
    "faiss-cpu": "faiss",
    "faiss-gpu": "faiss",
    "faster-coco-eval": "faster_coco_eval",
    "tensorrt-cu13-bindings": "tensorrt_bindings",
}
"""Distribution -> the module it installs, where the names differ."""
BEHIND = {"onnxscript"}
"""What torch's ONNX exporter imports."""
NETWORKS = {"torch", "safetensors", "transformers", "faster_coco_eval", "onnxruntime", "tensorrt_bindings"}
LATE = {"cpu": NETWORKS, "faiss": NETWORKS, "torch": {"faiss", "tensorrt_bindings"}, "export": {"faiss"}}
"""Target -> modules that `shared` imports within functions that its stages do not call, or do without."""


def held(target: str) -> list[str]:
    """The stages that a target is for."""
    return [name for name in names() if target in targets(declaration(name))]


def docker(*words: object) -> subprocess.CompletedProcess:
    return subprocess.run(["docker", *map(str, words)], capture_output=True, text=True)


@pytest.fixture
def writable(tmp_path: Path) -> Path:
    """A folder that user 10001 may write to, and nobody else but root."""
    folder = tmp_path / "out"
    folder.mkdir(mode=0o700)
    os.chown(folder, 10001, 10001)
    return folder


@pytest.fixture
def plain(tmp_path: Path, nuclei) -> Path:
    """Two plain images of real nuclei."""
    folder = tmp_path / "plain"
    folder.mkdir()
    for i in range(2):
        tifffile.imwrite(folder / f"{i}.tif", nuclei[:128, 128 * i : 128 * i + 128, 0])
    return folder


@pytest.fixture(params=["cpu", "torch", "export"])
def target(request) -> str:
    return request.param


@pytest.mark.docker
@pytest.mark.timeout(1500)
class TestImages:
    def test_without_arguments_the_stages_are_listed(self, target: str, stage_images: dict[str, str]) -> None:
        done = docker("run", "--rm", *HARDENED, stage_images[target])
        assert done.returncode == 0, done.stderr
        assert re.findall(r"^  (\w+) ", done.stdout, re.M) == held(target)

    def test_its_stages_have_the_versions_they_have_outside(self, target: str, stage_images: dict[str, str]) -> None:
        done = docker("run", "--rm", *HARDENED, stage_images[target], "--versions")
        assert json.loads(done.stdout) == {name: code_version(declaration(name)) for name in held(target)}

    def test_a_stage_of_another_image_is_refused_by_name(self, stage_images: dict[str, str]) -> None:
        done = docker("run", "--rm", *HARDENED, stage_images["cpu"], "pretrain", "--images", "/x", "--encoder", "/y")
        assert done.returncode == 2 and not done.stdout
        assert done.stderr.startswith("error: pretrain: ") and done.stderr.count("\n") == 1
        assert "torch" in done.stderr and ", ".join(held("cpu")) in done.stderr

    def test_the_image_says_what_it_is_and_runs_as_nobody(self, target: str, stage_images: dict[str, str]) -> None:
        (found,) = json.loads(docker("image", "inspect", stage_images[target]).stdout)
        labels = {key.rpartition(".")[2]: value for key, value in found["Config"]["Labels"].items()}
        assert labels["version"] == image_version() and labels["licenses"] == "MIT"
        checkout = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True).returncode == 0
        assert re.fullmatch("[0-9a-f]{40}" if checkout else "unknown", labels["revision"])
        assert found["Config"]["User"] == "10001:10001"

    def test_its_history_does_not_name_the_mirror(self, target: str, stage_images: dict[str, str]) -> None:
        done = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", stage_images[target])
        assert "CYTOLOOM_TARGET" in done.stdout, done.stderr
        assert not re.search("PIP_INDEX_URL|PIP_CERT|TENSORRT_LIBS|pip install", done.stdout)

    def test_nothing_is_installed_that_its_stages_do_not_need(self, stage_images: dict[str, str]) -> None:
        looked_for = ("torch", "kfp", "faiss", "timm", "onnxruntime")
        code = f"import importlib.util as u; print([n for n in {looked_for} if u.find_spec(n)])"
        found = {
            target: docker("run", "--rm", *HARDENED, image, "python", "-c", code).stdout.strip()
            for target, image in stage_images.items()
        }
        assert found == {"cpu": "['faiss']", "torch": "['torch', 'onnxruntime']", "export": "['torch', 'onnxruntime']"}

    def test_a_stage_without_a_network_runs_hardened(
        self, stage_images: dict[str, str], plain: Path, writable: Path
    ) -> None:
        """No network, nothing writable but the output, no rights; what it made is an artifact outside."""
        mounts = ["-v", f"{plain}:/plain:ro", "-v", f"{writable}:/out"]
        outputs = [word for name in ("images", "labels", "no_labels") for word in (f"--{name}", f"/out/{name}")]
        done = docker("run", "--rm", *HARDENED, *mounts, stage_images["cpu"], "ingest", "--source", "/plain", *outputs)
        assert done.returncode == 0, done.stderr
        assert verify(writable / "images", ImageSet).stage == "ingest"
        assert sorted(path.name for path in writable.iterdir()) == ["images", "labels", "no_labels"], (
            "nothing else is left"
        )

    def test_training_runs_hardened_and_says_on_what(
        self, stage_images: dict[str, str], plain: Path, writable: Path
    ) -> None:
        """The output is the mount itself, and the only place for temporary files."""
        mounts = ["-v", f"{plain}:/plain:ro", "-v", f"{writable}:/out"]
        small = {"size": "nano", "patch": 16, "crop": 64, "batch_size": 2, "steps": 2, "downsample": 1}
        options = [word for name, value in small.items() for word in (f"--{name}", value)]
        words = ["pretrain", "--images", "/plain", "--encoder", "/out", *options]
        done = docker("run", "--rm", *HARDENED, *mounts, stage_images["torch"], *words)
        assert done.returncode == 0, done.stderr
        assert verify(writable, Model).stage == "pretrain"
        assert not [path.name for path in writable.iterdir() if path.name.startswith(".")]
        assert re.search(r"computing on the CPU, \d+ threads", done.stderr)

    def test_an_export_runs_hardened(
        self, stage_images: dict[str, str], nuclei, tmp_path: Path, writable: Path
    ) -> None:
        images = write_images(tmp_path / "images", {"a": nuclei[:128, :128]})
        model = write_model(tmp_path / "model")
        mounts = ["-v", f"{images}:/images:ro", "-v", f"{model}:/model:ro", "-v", f"{writable}:/out", "--tmpfs=/tmp"]
        words = ["export_model", "--images", "/images", "--model", "/model", "--exported", "/out/exported"]
        done = docker("run", "--rm", *HARDENED, *mounts, stage_images["export"], *words, "--tensorrt", "never")
        assert done.returncode == 0, done.stderr
        assert verify(writable / "exported", Model).stage == "export_model"
        assert (writable / "exported/model.onnx").is_file()

    def test_with_nowhere_to_write_it_says_so(self, stage_images: dict[str, str], plain: Path) -> None:
        outputs = [word for name in ("images", "labels", "no_labels") for word in (f"--{name}", f"/out/{name}")]
        words = ["ingest", "--source", "/plain", *outputs]
        done = docker("run", "--rm", *HARDENED, "-v", f"{plain}:/plain:ro", stage_images["cpu"], *words)
        assert done.returncode == 1
        assert "CYTOLOOM_TMP: no folder for temporary files is writable" in done.stderr
        assert "Traceback" not in done.stderr


def imports(paths: list[Path]) -> set[str]:
    """Top-level names that these files import, wherever in them."""
    trees = [node for path in paths for node in ast.walk(ast.parse(path.read_text()))]
    plain = {alias.name.partition(".")[0] for node in trees if isinstance(node, ast.Import) for alias in node.names}
    return plain | {node.module.partition(".")[0] for node in trees if isinstance(node, ast.ImportFrom) and node.module}


def required(name: str) -> set[str]:
    """Distributions that `requirements/NAME.in` and what it includes ask for."""
    found = set()
    for line in (ROOT / f"requirements/{name}.in").read_text().splitlines():
        if line.startswith("-r "):
            found |= required(line.removeprefix("-r ").removesuffix(".in"))
        elif line and not line.startswith("#"):
            found.add(line.partition("==")[0])
    return found


@pytest.mark.parametrize("target", ["cpu", "export", "faiss", "torch"])
def test_what_an_image_requires_is_what_its_stages_import(target: str) -> None:
    folders = ["shared", *(f"components/{stage}" for stage in held(target))]
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    used = {name for name in imports(files) if name not in sys.stdlib_module_names}
    installed = {MODULES.get(name, name) for name in required(target)}
    optional = {"bioio", "pylibCZIrw", "components", "shared"}
    assert installed - BEHIND <= used, "in the image, and imported by none of its stages"
    missing = used - installed - optional - LATE[target]
    assert not missing, "imported, and not in the image"


def test_the_tag_of_the_images_needs_no_installed_package() -> None:
    """`docker/build.sh` computes it with the system's Python."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom shared.stage.version import image_version as version"
    command = [sys.executable, "-I", "-S", "-c", f"{code}\nprint(version())"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == image_version()


def test_an_index_with_a_password_is_refused() -> None:
    """A build argument stays in the history of the stages that install packages."""
    environment = {**os.environ, "PIP_INDEX_URL": "https://user:secret@packages.example/simple"}
    done = subprocess.run([ROOT / "docker/build.sh", "cpu"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout == ""
    assert "PIP_INDEX_URL" in done.stderr and "secret" not in done.stderr


def test_the_base_image_is_named_by_its_digest() -> None:
    default = re.search(r"^ARG BASE_IMAGE=(.*)$", (ROOT / "docker/Dockerfile").read_text(), re.MULTILINE)
    assert re.fullmatch(r"python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}", default[1])
