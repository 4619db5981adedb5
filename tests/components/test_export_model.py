"""`export_model`: real files, run by ONNX Runtime, compared on real nuclei."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tifffile
import torch
from real_labels import wheel_nuclei
from small_segmentor import CONFIG, predict_maps, write_images, write_model

from components.export_model.card import usage, usage_program
from components.export_model.comparison import ModelOutput, OutputDifference, compare_outputs, predict_images
from components.export_model.component import ExportModel
from components.export_model.exportable import load_exportable
from components.export_model.exported_files import rejection_reason
from components.export_model.main import run
from components.export_model.onnx_export import write_onnx
from shared.artifacts.kinds import Model
from shared.artifacts.manifest import hash_folder, seal
from shared.instances.postprocess import postprocess
from shared.models.backbones.vit import Encoder
from shared.models.config import EncoderConfig, ModelInput, SegmentorArchitecture, SegmentorConfig, VitArchitecture
from shared.models.files import save_model
from shared.models.runtimes.onnx_runtime import onnx_network
from shared.models.segmentor import Segmentor
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
    assert result.metrics["onnx_max_difference"] < 1e-3 and result.metrics["onnx_f1"] == 1
    assert "model.onnx agrees" in result.remark and "1.000" in result.remark and "no GPU" in result.remark
    return out, json.loads((out / "export.json").read_text())


def random_model(folder: Path, kind: str, **more) -> Path:
    """A model of random weights, large enough that its output moves with the input."""
    torch.manual_seed(0)
    seen = ModelInput(channels=2, crop_px=96, downsample=more.pop("downsample", 1))
    vit = VitArchitecture.preset("nano", 8).model_copy(update=more)
    if kind == "segmentor":
        config = SegmentorConfig(architecture=SegmentorArchitecture(encoder=vit), input=seen)
        module = Segmentor(config)
    else:
        config = EncoderConfig(architecture=vit, input=seen)
        module = Encoder(config)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    save_model(folder, module.state_dict(), config, "# Random")
    seal(folder, Model)
    return folder


@pytest.mark.parametrize(
    "more",
    [{}, {"downsample": 2}, {"position_grid": 12}, {"rope": True, "registers": 4, "layer_scale": True}],
    ids=["plain", "downsampled", "learned", "rotary"],
)
@pytest.mark.parametrize("kind", ["segmentor", "encoder"])
def test_any_batch_and_any_size_give_what_the_weights_give(tmp_path, kind, more):
    subject = load_exportable(random_model(tmp_path / "model", kind, **dict(more)))
    write_onnx(subject, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    reference, step = subject.network("cpu"), subject.multiple
    for n, rows, columns in ((1, 6, 9), (3, 10, 7), (2, 1, 2)):
        tiles = np.random.default_rng(n).normal(size=(n, 2, rows * step, columns * step)).astype(np.float32)
        expected, found = reference(tiles)[0], session.run(None, {"image": tiles})[0]
        assert found.shape == expected.shape
        assert expected.std() > 1e-3
        np.testing.assert_allclose(found, expected, atol=2e-4 * max(1.0, float(np.abs(expected).max())))


def test_the_exported_segmentor_finds_the_same_cells(exported):
    folder, described = exported
    file = described["files"]["model.onnx"]
    assert file["accepted"] and file["f1"] == file["dice"] == 1 and not file["rejection"]
    image = IMAGE[:128, :128]
    tiles = CONFIG.input.normalisation(image).transpose(2, 0, 1)[None]
    maps = onnx_network(folder / "model.onnx")(np.ascontiguousarray(tiles))[0][0]
    assert postprocess(maps.copy(), image, CONFIG.postprocessing).labels.max() > 3
    np.testing.assert_allclose(maps, predict_maps(image), atol=1e-3)


def test_export_json_describes_the_file(exported):
    folder, described = exported
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    [given], [output] = session.get_inputs(), session.get_outputs()
    assert described["input"] == {"name": given.name, "shape": given.shape, "dtype": "float32"}
    assert described["output"] == output.name and given.shape == ["batch", 1, "height", "width"]
    assert described["multiple"] == 16 and set(described["files"]) == {"model.onnx"}


def test_instances_are_compared_by_the_models_own_post_processing(images, tmp_path):
    """`high_threshold` of 0.95 in the model drops objects that 0 keeps."""
    counts = {}
    for high in (0.0, 0.95):
        settings = CONFIG.postprocessing.model_copy(update={"high_threshold": high})
        model = write_model(tmp_path / str(high), CONFIG.model_copy(update={"postprocessing": settings}))
        subject, image = load_exportable(model), IMAGE[256:, :256]
        output = predict_images(subject.network("cpu"), subject, [image], tile=128, batch_size=4, name="weights")
        assert np.array_equal(output.labels[0], postprocess(predict_maps(image), image, settings).labels)
        counts[high] = output.labels[0].max()
    assert counts[0.0] > counts[0.95]


def test_the_weights_are_copied_unchanged(exported, model):
    before, after = hash_folder(model), hash_folder(exported[0])
    for name in ("model.safetensors", "config.json"):
        assert after[name] == before[name]


def test_equal_models_give_equal_bytes_without_traces_of_the_machine(exported, images, model, tmp_path):
    subject = load_exportable(model)
    write_onnx(subject, tmp_path / "again.onnx")
    content = (tmp_path / "again.onnx").read_bytes()
    assert content == (exported[0] / "model.onnx").read_bytes()
    for trace in (str(Path(__file__).parents[2]), sys.prefix, ".py"):
        assert trace.encode() not in content, trace


@pytest.mark.parametrize("kind", ["segmentor", "encoder"])
def test_the_program_of_the_model_card_runs(exported, tmp_path, kind):
    """It needs nothing of this project, and gives what the weights give."""
    model = exported[0] if kind == "segmentor" else random_model(tmp_path / "encoder", "encoder")
    subject, image = load_exportable(model), IMAGE[:128, :124]
    if kind == "encoder":
        image = np.concatenate([image, image[::-1]], axis=2)
        write_onnx(subject, tmp_path / "model.onnx")
    else:
        (tmp_path / "model.onnx").write_bytes((exported[0] / "model.onnx").read_bytes())
    tifffile.imwrite(tmp_path / "image.tif", image, photometric="minisblack")
    program, result = usage_program(subject, "model.onnx"), "foreground" if kind == "segmentor" else "features"
    assert program in usage(subject, "model.onnx")
    (tmp_path / "use.py").write_text(f"{program}np.save('result.npy', {result})\n")
    subprocess.run([sys.executable, "-I", "use.py"], cwd=tmp_path, check=True)
    found = np.load(tmp_path / "result.npy")
    if kind == "segmentor":
        expected = predict_maps(image)[0] >= 0.5
        assert found.shape == expected.shape and expected.any()
        assert (found == expected).mean() > 0.995  # the program takes percentiles of all pixels, the stage of a sample
    else:
        assert found.shape == (128, 16, 16) and np.isfinite(found).all() and found.std() > 1e-3


def test_a_file_that_differs_is_deleted(images, model, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    given = ExportModel(images=images, model=model, exported=out, accepted=out, max_difference=1e-12)
    result = run(given)
    assert result.values == {"accepted": False} and result.metrics["accepted"] == 0
    assert not (out / "model.onnx").exists() and (out / "model.safetensors").exists()
    assert (out / "MODEL_CARD.md").read_bytes() == (model / "MODEL_CARD.md").read_bytes()
    file = json.loads((out / "export.json").read_text())["files"]["model.onnx"]
    assert not file["accepted"] and "--max_difference 1e-12" in file["rejection"]
    assert "model.onnx is deleted" in result.remark and file["rejection"] in result.remark


def test_every_limit_rejects():
    given = {name: Path("x") for name in ("images", "model", "exported")}
    stage = ExportModel(**given, max_difference=0.1, min_dice=0.9, min_f1=0.8)
    fine = OutputDifference(0.05, 0.95, 0.85)
    assert rejection_reason(stage, "float32", fine) == rejection_reason(stage, "float32", OutputDifference(0.05)) == ""
    for name, other in (("max_difference", 0.2), ("max_difference", np.inf), ("min_dice", 0.8), ("min_f1", 0.7)):
        changed = {"max_difference": fine.max_difference, "dice": fine.dice, "f1": fine.f1}
        changed |= {name.removeprefix("min_"): other}
        assert f"--{name}" in rejection_reason(stage, "float32", OutputDifference(**changed))
    assert rejection_reason(stage, "float16", OutputDifference(0.2, 0.95, 0.85)) == "", "float16 is less exact"


def test_differences_are_measured():
    labels = np.zeros((40, 40), np.int32)
    labels[5:15, 5:15], labels[20:30, 20:30] = 1, 2
    moved = np.roll(labels, 8, axis=1)
    maps = np.zeros((1, 40, 40), np.float32)
    reference = ModelOutput([maps], [labels])
    assert compare_outputs(ModelOutput([maps], [labels]), reference) == OutputDifference(0, 1, 1)
    other = compare_outputs(ModelOutput([maps + 0.25], [moved]), reference)
    assert other.max_difference == 0.25 and other.dice == pytest.approx(0.2) and other.f1 == 0
    half = compare_outputs(ModelOutput([maps], [np.where(labels == 1, 1, 0)]), reference)
    assert half.f1 == pytest.approx(2 / 3)
    broken = compare_outputs(ModelOutput([np.full_like(maps, np.nan)], [labels]), reference)
    assert broken.max_difference == np.inf
    empty = ModelOutput([maps], [np.zeros_like(labels)])
    assert compare_outputs(empty, empty).f1 == 1
    assert compare_outputs(ModelOutput([maps]), ModelOutput([maps])) == OutputDifference(0.0)


def test_an_encoder_is_compared_by_its_features(images, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    encoder = random_model(tmp_path / "encoder", "encoder")
    result = run(ExportModel(images=images, model=encoder, exported=out, accepted=out))
    assert result.values == {"accepted": True}
    assert set(result.metrics) == {"accepted", "onnx_max_difference"}
    assert json.loads((out / "export.json").read_text())["output"] == "features"


def test_tensorrt_always_needs_a_gpu(images, model, tmp_path, monkeypatch):
    monkeypatch.setenv("CYTOLOOM_DEVICE", "cpu")
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(UserError, match="--tensorrt always: there is no GPU; set it to auto or never"):
        run(ExportModel(images=images, model=model, exported=out, accepted=out, tensorrt="always"))
    assert not list(out.iterdir())


def test_other_models_and_broken_files_are_refused(model, images, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"kind": "classifier"}')
    with pytest.raises(ArtifactError, match=r"'classifier'.*'encoder' or 'segmentor'"):
        load_exportable(other)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ArtifactError, match=r"broken\.onnx: ONNX Runtime cannot load it"):
        onnx_network(tmp_path / "broken.onnx")
    none = write_images(tmp_path / "none", {})
    with pytest.raises(UserError, match="--images: no image to compare on"):
        run(ExportModel(images=none, model=model, exported=other, accepted=other))
