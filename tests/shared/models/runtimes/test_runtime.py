"""`open_model`: a model by each runtime, and files that do not belong to it."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_segmentor import CONFIG, write_encoder, write_model

from components.export_model.exportable import load_exportable
from components.export_model.onnx_export import write_onnx
from shared.models.files import save_absent, save_config
from shared.models.runtimes.runtime import open_model
from shared.system.errors import ArtifactError, UserError


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """The trained segmentor with its ONNX file."""
    folder = write_model(tmp_path_factory.mktemp("runtimes") / "model")
    write_onnx(load_exportable(folder), folder / "model.onnx")
    return folder


@pytest.fixture
def model(original, tmp_path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(original, tmp_path / "model"))


def change_properties(path: Path, **changes: object) -> None:
    """Set fields of the metadata; None removes one."""
    model = onnx.load(path)
    properties = {one.key: one.value for one in model.metadata_props}
    for name, value in changes.items():
        properties.pop(f"cytoloom.{name}")
        if value is not None:
            properties[f"cytoloom.{name}"] = json.dumps(value)
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, path)


def test_pytorch_and_onnx_runtime_agree(original):
    tiles = np.random.default_rng(0).normal(0.3, 0.3, (3, 1, 64, 96)).astype(np.float32)
    by = {name: open_model(original, runtime=name) for name in ("pytorch", "onnx", "auto")}
    assert {name: one.runtime for name, one in by.items()} == {"pytorch": "pytorch", "onnx": "onnx", "auto": "onnx"}
    (expected,), (found,) = by["pytorch"].network(tiles), by["onnx"].network(tiles)
    assert found.shape == expected.shape == (3, 2, 64, 96) and expected.std() > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert by["onnx"].config == CONFIG and by["onnx"].metadata.classes == ("foreground", "distance")
    assert by["pytorch"].metadata is None


def test_an_encoder_runs_by_pytorch(tmp_path):
    opened = open_model(write_encoder(tmp_path / "encoder"))
    assert opened.runtime == "pytorch" and opened.network(np.zeros((2, 1, 64, 64), np.float32))[0].shape[2:] == (8, 8)


def test_a_runtime_without_its_file_is_refused(tmp_path):
    model = write_model(tmp_path / "model")
    with pytest.raises(UserError, match=r"--runtime onnx: .*model\.onnx: no such file; run export_model first"):
        open_model(model, runtime="onnx")
    (model / "model.engine").write_bytes(b"x")
    with pytest.raises(UserError, match="--runtime tensorrt: there is no GPU; set it to auto"):
        open_model(model, runtime="tensorrt")
    assert open_model(model).runtime == "pytorch"
    save_absent(tmp_path / "absent", "no labels")
    with pytest.raises(ArtifactError, match="'absent'"):
        open_model(tmp_path / "absent")


def test_files_that_do_not_belong_to_the_model_are_refused(model):
    path = model / "model.onnx"
    original = path.read_bytes()
    for changes, message in (
        ({"schema_version": 7}, "its schema version is 7, this program reads 1; export the model again"),
        ({"schema_version": None}, "not a file that export_model wrote"),
        ({"kind": "encoder"}, "of kind encoder, the model in .* is of kind segmentor"),
        ({"tile": None}, "metadata tile: Field required"),
        ({"model_digest": "0" * 64}, "exported from another model than the model.safetensors and config.json"),
    ):
        path.write_bytes(original)
        change_properties(path, **changes)
        with pytest.raises(ArtifactError, match=message):
            open_model(model, runtime="onnx")
    path.write_bytes(original)
    higher = CONFIG.postprocessing.model_copy(update={"foreground_threshold": 0.9})
    save_config(model, CONFIG.model_copy(update={"postprocessing": higher}))
    with pytest.raises(ArtifactError, match="exported from another model"):
        open_model(model)


def test_files_that_are_no_graphs_are_refused(model):
    for content in (b"no model", b"", (model / "model.safetensors").read_bytes()):
        (model / "model.onnx").write_bytes(content)
        with pytest.raises(ArtifactError, match=r"model\.onnx: ONNX Runtime cannot load it"):
            open_model(model)


def test_a_file_of_an_opset_to_come_is_refused(model):
    changed = onnx.load(model / "model.onnx")
    changed.opset_import[0].version = 99
    onnx.save(changed, model / "model.onnx")
    with pytest.raises(ArtifactError, match=r"model\.onnx: ONNX Runtime cannot load it .*opset"):
        open_model(model)
