"""`import_model`: the same model under the same digest, from a folder and from a store; what it refuses."""

import json
from pathlib import Path

import pytest
from small_segmentor import write_encoder, write_model

from components.import_model.component import ImportModel
from components.import_model.main import run
from shared import store
from shared.artifacts.kinds import Model
from shared.artifacts.manifest import MANIFEST, read_manifest, seal, verify
from shared.models.files import CONFIG, WEIGHTS, is_absent, save_absent
from shared.stage.declaration import Result
from shared.system.errors import ArtifactError, UserError


def imported(source: object, kind: str, folder: Path) -> Result:
    """Import a model to `folder` and seal it there."""
    folder.mkdir()
    places = {"model": folder, "report": folder / "report.html", "metrics": folder / "metrics.json"}
    result = run(ImportModel(**places, source=str(source), kind=kind))
    seal(folder, Model, skipped=result.skipped)
    return result


@pytest.fixture(scope="module")
def segmentor(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "segmentor")


def test_a_model_keeps_its_digest_and_its_files(segmentor, tmp_path):
    result = imported(segmentor, "segmentor", tmp_path / "model")
    digest = read_manifest(segmentor).digest
    assert verify(tmp_path / "model", Model).digest == digest and digest[:12] in result.remark
    assert {path.name for path in (tmp_path / "model").iterdir()} == {path.name for path in segmentor.iterdir()}
    assert digest in result.page.html() and not result.skipped


def test_a_model_comes_from_a_store(segmentor, tmp_path, s3):
    store.send(segmentor, f"{s3}/last-month")
    result = imported(f"{s3}/last-month", "segmentor", tmp_path / "model")
    assert verify(tmp_path / "model").digest == read_manifest(segmentor).digest
    assert f"{s3}/last-month" in result.remark and "/tmp" not in result.remark
    with pytest.raises(ArtifactError, match=rf"--source: {s3}/last-month: a model of kind 'segmentor'"):
        imported(f"{s3}/last-month", "detector", tmp_path / "no")


def test_without_a_source_the_model_is_absent(tmp_path):
    assert imported("", "classifier", tmp_path / "model").skipped == "no classifier is given"
    assert is_absent(tmp_path / "model") and verify(tmp_path / "model", Model)


def test_the_absent_model_is_a_file_of_safetensors(tmp_path):
    from safetensors.torch import load_file, save

    save_absent(tmp_path / "absent", "nothing to learn from")
    assert (tmp_path / "absent" / WEIGHTS).read_bytes() == save({}) and load_file(tmp_path / "absent" / WEIGHTS) == {}


def test_an_absent_model_of_an_earlier_run_is_refused(tmp_path):
    save_absent(tmp_path / "absent", "no classes")
    seal(tmp_path / "absent", Model)
    with pytest.raises(UserError, match=r"--source: .*absent holds no model, because its stage had nothing to learn"):
        imported(tmp_path / "absent", "classifier", tmp_path / "model")


def test_another_kind_is_refused(tmp_path):
    encoder = write_encoder(tmp_path / "encoder")
    with pytest.raises(
        ArtifactError, match=r"--source: .*/encoder: a model of kind 'encoder'; give one of kind 'detec"
    ):
        imported(encoder, "detector", tmp_path / "model")


def test_another_version_is_refused(tmp_path):
    """Of the artifact's form, and of the config."""
    model = write_model(tmp_path / "given")
    manifest = json.loads((model / MANIFEST).read_text())
    (model / MANIFEST).write_text(json.dumps({**manifest, "schema_version": 99}))
    with pytest.raises(
        ArtifactError, match=r"--source: .*given.*: schema version 99, this program reads 1; make it aga"
    ):
        imported(model, "segmentor", tmp_path / "no")
    config = json.loads((model / CONFIG).read_text())
    config["architecture"]["invented_next_year"] = 1
    (model / CONFIG).write_text(json.dumps(config))
    (model / MANIFEST).unlink()
    seal(model, Model)
    with pytest.raises(
        ArtifactError, match=r"--source: .*config.json: .*invented_next_year: Extra inputs are not perm"
    ):
        imported(model, "segmentor", tmp_path / "no2")


def test_what_is_no_sound_model_is_refused(small_images, tmp_path):
    model = write_model(tmp_path / "given")
    content = bytearray((model / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (model / WEIGHTS).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"--source: .*model.safetensors: its contents differ"):
        imported(model, "segmentor", tmp_path / "no")
    with pytest.raises(ArtifactError, match=r"--source: .*: a Model is needed here, this one's type is ImageSet"):
        imported(small_images, "segmentor", tmp_path / "no2")
    with pytest.raises(ArtifactError, match=r"--source: .*nothing: no such folder"):
        imported(tmp_path / "nothing", "segmentor", tmp_path / "no3")


def test_a_model_of_every_kind_can_be_named():
    from typing import get_args

    from components.import_model.main import _CONFIGS

    choices = get_args(ImportModel.model_fields["kind"].annotation)
    assert set(choices) == set(_CONFIGS) - {"absent"}
