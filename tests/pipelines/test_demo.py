"""Fetching the demo's images, by the real pip from a folder of wheels in place of an index."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pipelines.demo import DEMOS, SAMPLES, fetch_samples
from pipelines.graphs import PRESETS
from shared.artifacts.manifest import sha256_file
from shared.system.errors import UserError

ROOT = Path(__file__).parents[2]
STARDIST = tuple(sample for sample in SAMPLES if sample.wheel.startswith("stardist"))


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """The only place where pip looks."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    return folder


def make_wheel(index: Path, name: str, members: dict[str, bytes]) -> None:
    project, version = name.split("==")
    info = f"{project}-{version}.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
        **members,
    }
    with zipfile.ZipFile(index / f"{project}-{version}-py3-none-any.whl", "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)


def real_members() -> dict[str, bytes]:
    """The images of the installed stardist, which are those of its wheel."""
    import importlib.util

    package = Path(importlib.util.find_spec("stardist").origin).parent
    return {sample.member: (package.parent / sample.member).read_bytes() for sample in STARDIST}


def test_images_are_taken_out_checked_and_kept(index, tmp_path):
    make_wheel(index, "stardist==0.9.2", {**real_members(), "stardist/__init__.py": b"raise SystemExit('installed')"})
    fetch_samples(tmp_path / "images", STARDIST)
    found = {p.relative_to(tmp_path / "images").as_posix(): p for p in (tmp_path / "images").rglob("*.*")}
    assert set(found) == {"test/img2d.tif", "test/img2d_masks.tif"}
    assert all(sha256_file(found[sample.target]) == sample.sha256 for sample in STARDIST)
    times = {path: path.stat().st_mtime_ns for path in found.values()}
    (index / "stardist-0.9.2-py3-none-any.whl").unlink()
    fetch_samples(tmp_path / "images", STARDIST)  # needs no index any more
    assert {path: path.stat().st_mtime_ns for path in found.values()} == times


def test_a_damaged_image_is_fetched_again(index, tmp_path):
    make_wheel(index, "stardist==0.9.2", real_members())
    fetch_samples(tmp_path / "images", STARDIST)
    (tmp_path / "images/test/img2d.tif").write_bytes(b"cut")
    fetch_samples(tmp_path / "images", STARDIST)
    assert sha256_file(tmp_path / "images/test/img2d.tif") == STARDIST[0].sha256


def test_other_contents_are_refused(index, tmp_path):
    members = real_members()
    members[STARDIST[1].member] += b"x"
    make_wheel(index, "stardist==0.9.2", members)
    with pytest.raises(UserError, match=r"mask2d.tif has sha256 \w+, expected 59ad5e"):
        fetch_samples(tmp_path / "images", STARDIST)
    assert not list((tmp_path / "images").rglob("*mask*"))


def test_a_wheel_without_the_image(index, tmp_path):
    make_wheel(index, "stardist==0.9.2", {})
    with pytest.raises(UserError, match=r"no stardist/data/images/img2d\.tif in it"):
        fetch_samples(tmp_path / "images", STARDIST)


@pytest.mark.parametrize("demo", DEMOS)
def test_a_demo_has_a_preset_of_its_graph(demo):
    graph, name = DEMOS[demo]
    header = (PRESETS / f"{name}.yaml").read_text().partition("\n\n")[0]
    assert f"cytoloom run {graph} --source runs/demo-images" in header and f"--out runs/{name}" in header
    assert ("make run," in header) == (demo == "segmentor") and (f"DEMO={demo}" in header) == (demo != "segmentor")


def test_offline_it_says_so(index, tmp_path):
    command = [sys.executable, "-m", "pipelines.demo", "--images", tmp_path / "images", "--out", tmp_path / "run"]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, env=dict(os.environ), capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("error: stardist==0.9.2: not available from the package index")
    assert "go online once" in done.stderr and not (tmp_path / "run").exists()
