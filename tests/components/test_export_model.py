"""`export_model`: real files, run by ONNX Runtime, compared on real nuclei."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tifffile
import torch
from real_labels import wheel_nuclei
from small_segmentor import CONFIG, trained, write_images, write_model

from components.export_model.comparison import Output, agreement
from components.export_model.component import ExportModel
from components.export_model.exportable import subject_of
from components.export_model.main import run
from components.export_model.onnx_export import onnx_network, write_onnx
from shared.artifacts.kinds import Model
from shared.artifacts.manifest import hash_folder, seal
from shared.instances.postprocess import find
from shared.models.backbones.vit import Encoder, EncoderConfig, save_encoder
from shared.models.segmentor import Segmentor, SegmentorConfig, save_segmentor
from shared.models.tiled_inference import predict, predict_maps
from shared.system.errors import ArtifactError, UserError

IMAGE = wheel_nuclei()[0][..., None]


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("export") / "images", {"a": IMAGE[:200, :300], "b": IMAGE[256:, :256]})


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def exported(images, model, tmp_path_factory) -> tuple[Path, dict]:
    """The trained segmentor, exported; the folder and `export.json`."""
    out = tmp_path_factory.mktemp("exported")
    result = run(ExportModel(images=images, model=model, exported=out, accepted=out / "accepted"))
    assert result.values == {"accepted": True}
    assert result.metrics["onnx_largest_difference"] < 1e-3
    assert "let out" in result.page.html() and "there is no GPU" in result.page.html()
    return out, json.loads((out / "export.json").read_text())


def random_model(folder: Path, kind: str, **more) -> Path:
    """A model of random weights, large enough that its output moves with the input."""
    torch.manual_seed(0)
    encoder = EncoderConfig.of("nano", patch=8, channels=2, crop=96).model_copy(update=more)
    config = SegmentorConfig(encoder=encoder, heads=("foreground", "depth")) if kind == "segmentor" else encoder
    module = Segmentor(config) if kind == "segmentor" else Encoder(config)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    save = save_segmentor if kind == "segmentor" else save_encoder
    save(folder, module.eval(), config, "# Random")
    seal(folder, Model)
    return folder


@pytest.mark.parametrize(
    "more",
    [{}, {"downsample": 2}, {"position_grid": 12}, {"rope": True, "registers": 4, "layer_scale": True}],
    ids=["plain", "downsampled", "learned", "rotary"],
)
@pytest.mark.parametrize("kind", ["segmentor", "encoder"])
def test_any_batch_and_any_size_give_what_the_weights_give(tmp_path, kind, more):
    subject = subject_of(random_model(tmp_path / "model", kind, **more))
    write_onnx(subject, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    reference, step = subject.network("cpu"), subject.multiple
    for n, rows, columns in ((1, 6, 9), (3, 10, 7), (2, 1, 2)):
        tiles = np.random.default_rng(n).normal(size=(n, 2, rows * step, columns * step)).astype(np.float32)
        expected, found = reference(tiles), session.run(None, {"image": tiles})[0]
        assert found.shape == expected.shape
        assert expected.std() > 1e-3
        np.testing.assert_allclose(found, expected, atol=2e-4 * max(1.0, float(np.abs(expected).max())))


def test_the_exported_segmentor_finds_the_same_cells(exported, images):
    folder, described = exported
    form = described["forms"]["model.onnx"]
    assert form["let_out"] and form["f1"] == form["dice"] == 1
    image = IMAGE[:128, :128]
    tiles = CONFIG.encoder.normalisation(image).transpose(2, 0, 1)[None]
    maps = onnx_network(folder / "model.onnx")(np.ascontiguousarray(tiles))[0]
    expected = predict_maps(trained(), CONFIG, image, tile=128, batch_size=1, device="cpu")
    assert find(maps.copy(), image, sure=CONFIG.sure, sharpen="none").cells(0.8).max() > 3
    np.testing.assert_allclose(maps, expected, atol=1e-3)


def test_the_weights_go_along_unchanged(exported, model):
    before, after = hash_folder(model), hash_folder(exported[0])
    for name in ("model.safetensors", "config.json"):
        assert after[name] == before[name]


def test_equal_models_give_equal_bytes_that_tell_nothing_of_the_machine(exported, images, model, tmp_path):
    subject = subject_of(model)
    write_onnx(subject, tmp_path / "again.onnx")
    content = (tmp_path / "again.onnx").read_bytes()
    assert content == (exported[0] / "model.onnx").read_bytes()
    for trace in (str(Path(__file__).parents[2]), sys.prefix, ".py"):
        assert trace.encode() not in content, trace


def test_the_program_in_the_model_card_runs(exported, tmp_path):
    tifffile.imwrite(tmp_path / "image.tif", IMAGE[:128, :124, 0])
    (tmp_path / "model.onnx").write_bytes((exported[0] / "model.onnx").read_bytes())
    program = re.search(r"```python\n(.*?)```", (exported[0] / "MODEL_CARD.md").read_text(), re.S)[1]
    (tmp_path / "use.py").write_text(program + "np.save('foreground.npy', foreground)\n")
    subprocess.run([sys.executable, "use.py"], cwd=tmp_path, check=True)
    expected = predict(trained(), CONFIG, IMAGE[:128, :124], tile=128, batch_size=1, device="cpu") >= 0.5
    found = np.load(tmp_path / "foreground.npy")
    assert found.shape == expected.shape and expected.any()
    assert (found == expected).mean() > 0.995  # its percentiles are of all pixels


def test_a_form_that_differs_is_not_let_out(images, model, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    given = ExportModel(images=images, model=model, exported=out, accepted=out, max_difference=1e-12)
    result = run(given)
    assert result.values == {"accepted": False} and result.metrics["accepted"] == 0
    assert not (out / "model.onnx").exists() and (out / "model.safetensors").exists()
    assert "onnxruntime" not in (out / "MODEL_CARD.md").read_text()
    form = json.loads((out / "export.json").read_text())["forms"]["model.onnx"]
    assert not form["let_out"] and "differs by up to" in form["reason"]
    assert "differs by up to" in result.page.html()


def test_differences_show():
    labels = np.zeros((40, 40), np.int32)
    labels[5:15, 5:15], labels[20:30, 20:30] = 1, 2
    moved = np.roll(labels, 8, axis=1)
    maps = np.zeros((1, 40, 40), np.float32)
    original = Output([maps], [labels])
    same = agreement(Output([maps], [labels]), original)
    assert (same.max_difference, same.dice, same.f1) == (0, 1, 1)
    other = agreement(Output([maps + 0.25], [moved]), original)
    assert other.max_difference == 0.25 and other.dice == pytest.approx(0.2) and other.f1 == 0
    assert agreement(Output([maps], [np.where(labels == 1, 1, 0)]), original).f1 == pytest.approx(2 / 3)
    assert agreement(Output([np.full_like(maps, np.nan)], [labels]), original).max_difference == np.inf
    empty = Output([maps], [np.zeros_like(labels)])
    assert agreement(empty, empty).f1 == 1
    assert agreement(Output([maps]), Output([maps])) == type(same)(0.0)


def test_an_encoder_is_compared_by_its_features(images, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    encoder = random_model(tmp_path / "encoder", "encoder")
    result = run(ExportModel(images=images, model=encoder, exported=out, accepted=out))
    assert result.values == {"accepted": True}
    assert set(result.metrics) == {"accepted", "onnx_largest_difference"}
    assert "features" in (out / "MODEL_CARD.md").read_text()


def test_an_engine_that_is_demanded_needs_a_gpu(images, model, tmp_path, monkeypatch):
    monkeypatch.setenv("CYTOLOOM_DEVICE", "cpu")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(UserError, match="--tensorrt always: there is no GPU; set it to auto or never"):
        run(ExportModel(images=images, model=model, exported=out, accepted=out, tensorrt="always"))
    assert not list(out.iterdir())


def test_what_is_no_model_is_refused(model, images, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"kind": "classifier"}')
    with pytest.raises(ArtifactError, match="'classifier' cannot be exported; give a segmentor or an encoder"):
        subject_of(other)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ArtifactError, match=r"broken\.onnx: ONNX Runtime cannot load it"):
        onnx_network(tmp_path / "broken.onnx")
    none = write_images(tmp_path / "none", {})
    with pytest.raises(UserError, match="--images: none to compare on"):
        run(ExportModel(images=none, model=model, exported=other, accepted=other))
