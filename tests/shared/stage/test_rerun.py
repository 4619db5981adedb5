"""The command that runs a task again, in the form for a container."""

import os
import shlex
from pathlib import Path
from typing import ClassVar

import pytest

from shared.artifacts.kinds import ImageSet, LabelSet
from shared.stage.declaration import In, Out, Stage
from shared.stage.rerun import rerun_command


class Relabel(Stage):
    """A stage."""

    image: ClassVar[str] = "cpu"

    images: In[ImageSet]
    """Images."""
    labels: Out[LabelSet]
    """Labels."""
    table: str = ""
    """A file."""
    count: int = 3
    """A number."""


def words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locations: dict[str, str], **parameters: object
) -> list[str]:
    for name in ("CYTOLOOM_IMAGE", "CYTOLOOM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    stage = Relabel(images=tmp_path, labels=tmp_path, **parameters)
    command = shlex.split(rerun_command(stage, locations, "registry/cpu:1"))
    user = f"{os.getuid()}:{os.getgid()}"
    assert command[:8] == ["docker", "run", "--rm", "--network", "host", "--user", user, "--env"]
    return command


def volumes(command: list[str]) -> list[str]:
    return [command[i + 1] for i, word in enumerate(command) if word == "--volume"]


def test_inputs_are_mounted_read_only_and_the_folders_of_outputs_for_writing(tmp_path, monkeypatch):
    (tmp_path / "table.csv").touch()
    locations = {"images": f"{tmp_path}/in/images", "labels": f"{tmp_path}/out/labels/"}
    command = words(tmp_path, monkeypatch, locations, table=f"{tmp_path}/table.csv", count=5)
    mounted = {f"{tmp_path}/in/images:{tmp_path}/in/images:ro", f"{tmp_path}/out:{tmp_path}/out"}
    assert set(volumes(command)) == mounted | {f"{tmp_path}/table.csv:{tmp_path}/table.csv:ro"}
    assert command[command.index("registry/cpu:1") :] == [
        *("registry/cpu:1", "relabel", "--images", f"{tmp_path}/in/images", "--labels", f"{tmp_path}/out/labels-again"),
        *("--table", f"{tmp_path}/table.csv", "--count", "5"),
    ]


def test_an_input_in_the_folder_of_an_output_stays_writable(tmp_path, monkeypatch):
    command = words(tmp_path, monkeypatch, {"images": f"{tmp_path}", "labels": f"{tmp_path}/labels"})
    assert volumes(command) == [f"{tmp_path}:{tmp_path}"]


def test_uris_and_secrets_are_passed_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    command = words(tmp_path, monkeypatch, {"images": "s3://b/images", "labels": "s3://b/labels"})
    assert volumes(command) == [] and "very-secret" not in " ".join(command)
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION"} <= set(command)
    assert command[-4:] == ["--images", "s3://b/images", "--labels", "s3://b/labels-again"]


def test_what_chooses_kernels_is_passed_on_where_it_is_set(tmp_path, monkeypatch):
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    places = {"images": f"{tmp_path}/images", "labels": f"{tmp_path}/labels"}
    assert "OPENBLAS_CORETYPE" not in words(tmp_path, monkeypatch, places)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    command = words(tmp_path, monkeypatch, places)
    assert command[command.index("OPENBLAS_CORETYPE") - 1] == "--env"


def test_an_output_that_is_a_mount_point_gets_one_beside_it(tmp_path, monkeypatch):
    command = words(tmp_path, monkeypatch, {"images": f"{tmp_path}", "labels": "/labels"})
    assert "/labels-again:/labels-again" in volumes(command)
