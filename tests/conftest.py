"""Fixtures of several test folders: a small copy of the tree with stages for tests, and real images."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
"""A script's `&` ignores Ctrl-C, and `nohup` SIGHUP; child processes inherit that, and tests send them both."""


TAKEN = os.environ.pop("CYTOLOOM_TESTS_TAKEN", None)
"""Folder in which the processes of `tools/run_tests.py` note the groups of tests that they have taken."""


def group(item: pytest.Item) -> str:
    """Tests that one process runs: those of a file, and all that need Docker."""
    uses_docker = "docker_engine" in getattr(item, "fixturenames", ()) or item.get_closest_marker("docker")
    return "docker" if uses_docker else item.nodeid.split("::")[0].replace("/", ".")


def taken_by_this_process(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    """The tests of the groups that no other process has taken, the largest group first; takes a group when it comes."""
    assert TAKEN is not None
    mine: dict[str, bool] = {}
    for item in sorted(items, key=lambda item: group(item) != "docker"):
        name = group(item)
        if name not in mine:
            try:
                (Path(TAKEN) / name).mkdir()
                mine[name] = True
            except FileExistsError:
                mine[name] = False
        if mine[name]:
            yield item


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run as one of several processes: pytest's own loop, over the tests that this one takes."""
    if not TAKEN or session.config.option.collectonly or session.testsfailed:
        return None
    tests = taken_by_this_process(session.items)
    item = next(tests, None)
    while item is not None:
        following = next(tests, None)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = following
    return True


class Tree:
    """A copy of the code that starts a stage; a test adds stages and runs them by the real command line."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        for folder in ("shared", "requirements"):
            shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
        (root / "components").mkdir()
        for name in ("__init__.py", "__main__.py", "registry.py"):
            shutil.copy(ROOT / "components" / name, root / "components" / name)

    def add_stage(self, name: str, files: dict[str, str]) -> None:
        folder = self.root / "components" / name
        folder.mkdir()
        for file, text in files.items():
            (folder / file).write_text(text)

    def add_stages(self) -> None:
        """Add every stage of the repository."""
        for path in (ROOT / "components").glob("*/component.py"):
            target = self.root / "components" / path.parent.name
            shutil.copytree(path.parent, target, ignore=shutil.ignore_patterns("__pycache__"))

    def environment(self, **extra: str) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1", **extra}

    def command(self, *args: object) -> list[str]:
        return [sys.executable, "-m", "components", *map(str, args)]

    def run(self, *args: object, timeout: float = 120, **options: object) -> subprocess.CompletedProcess:
        environment = self.environment(**options.pop("env", {}))
        return subprocess.run(
            self.command(*args),
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            **options,
        )


@pytest.fixture(scope="session")
def make_tree(tmp_path_factory: pytest.TempPathFactory):
    return lambda name: Tree(tmp_path_factory.mktemp(name) / "tree")


def readme_files() -> dict[str, str]:
    """Return path -> text of the files that the README shows in full."""
    text = (ROOT / "README.md").read_text()
    return dict(re.findall(r"^`(components/\w+/\w+\.py)`[^\n]*\n```python\n(.*?)^```", text, re.M | re.S))


@pytest.fixture(scope="session")
def readme_stage() -> dict[str, dict[str, str]]:
    stages: dict[str, dict[str, str]] = {}
    for path, text in readme_files().items():
        _, stage, name = path.split("/")
        stages.setdefault(stage, {})[name] = text
    return stages


@pytest.fixture(scope="session")
def nuclei() -> "object":
    """(512, 512, 1) uint16: the fluorescent nuclei that the stardist wheel carries."""
    import tifffile

    spec = importlib.util.find_spec("stardist")
    assert spec is not None and spec.origin is not None, "stardist is in requirements/dev.lock"
    return tifffile.imread(Path(spec.origin).parent / "data/images/img2d.tif")[..., None]


@pytest.fixture(scope="session")
def small_images(tmp_path_factory: pytest.TempPathFactory, nuclei) -> Path:
    """A sealed ImageSet of four 64 x 64 crops."""
    from shared.artifacts.image_set import ImageWriter
    from shared.artifacts.kinds import ImageSet
    from shared.artifacts.manifest import seal

    folder = tmp_path_factory.mktemp("data") / "images"
    with ImageWriter(folder) as writer:
        for i in range(4):
            crop = nuclei[64 * i : 64 * i + 64, 128:192]
            writer.add(f"crop{i}", crop, source="img2d.tif", group="img2d")
    seal(folder, ImageSet, stage="ingest")
    return folder


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory):
    """A real S3 server on this machine; without one the test fails."""
    from s3_server import Server

    server = Server(tmp_path_factory.mktemp("s3"))
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch: pytest.MonkeyPatch) -> str:
    """`s3://bucket`, with the environment that reaches it."""
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3_server.bucket}"


@pytest.fixture(scope="session")
def docker_engine():
    """A running Docker engine: the machine's, or one that the tests start; without one the test fails."""
    from docker_engine import engine

    with engine():
        yield


@pytest.fixture(scope="session")
def stage_images(docker_engine) -> dict[str, str]:
    """Target -> reference of the images that hold all stages, built from the present code."""
    from docker_engine import images

    return images("cpu", "torch", "export")


@pytest.fixture(scope="module")
def one_thread():
    """Compute in one thread: a loaded machine is much slower with more."""
    before = os.environ.get("CYTOLOOM_THREADS")
    os.environ["CYTOLOOM_THREADS"] = "1"
    yield
    os.environ.pop("CYTOLOOM_THREADS") if before is None else os.environ.update(CYTOLOOM_THREADS=before)
