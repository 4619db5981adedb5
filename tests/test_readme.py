"""What the README tells a reader to do works: the stage it shows in full is added to a copy of the tree and run."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shared.artifacts.image_set import ImageReader
from shared.artifacts.kinds import ImageSet
from shared.artifacts.manifest import verify

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tree(make_tree, readme_stage):
    tree = make_tree("readme")
    assert set(readme_stage) == {"smooth"}
    assert set(readme_stage["smooth"]) == {"__init__.py", "component.py", "main.py"}
    tree.add_stage("smooth", readme_stage["smooth"])
    return tree


def roughness(image: np.ndarray) -> float:
    return float(np.abs(np.diff(image.astype(float), axis=0)).mean())


def test_the_readme_stage_runs(tree, small_images, tmp_path):
    done = tree.run(
        "smooth",
        "--images",
        small_images,
        "--smoothed",
        tmp_path / "out",
        "--sigma",
        "3",
        "--report",
        tmp_path / "r.html",
    )
    assert done.returncode == 0, done.stderr
    verify(tmp_path / "out", ImageSet)
    before, after = ImageReader(small_images), ImageReader(tmp_path / "out")
    keys = before.keys()
    assert keys == after.keys()
    assert all(roughness(after.read(key)) < 0.6 * roughness(before.read(key)) for key in keys)
    assert "4 images smoothed" in (tmp_path / "r.html").read_text()


def test_the_readme_stage_is_listed_and_documented(tree):
    assert "smooth             Blur every image with a Gaussian" in tree.run("--help").stdout
    assert "px, standard deviation of the Gaussian. [> 0, <= 20; default 1.0]" in tree.run("smooth", "--help").stdout


def test_the_contract_holds_for_the_readme_stage(tree):
    """The contract test finds the new folder by itself."""
    for folder in ("tests", "docker"):
        (tree.root / folder).mkdir()
    shutil.copy(ROOT / "docker/Dockerfile", tree.root / "docker")
    for name in ("test_contract.py", "conftest.py"):
        shutil.copy(ROOT / "tests" / name, tree.root / "tests")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/test_contract.py", "-p", "no:cacheprovider", "-k", "smooth", "-v"],
        cwd=tree.root,
        env=tree.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASSED") >= 8 and "FAILED" not in done.stdout
