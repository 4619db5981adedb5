"""`export_model` of segmentors and encoders: real files, run by ONNX Runtime, compared on real nuclei."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tifffile
from real_labels import wheel_nuclei
from small_export import export, export_spoilt, write_random_model
from small_segmentor import CONFIG, predict_maps, write_images, write_model, write_truth

from components.export_model.card import usage, usage_program
from components.export_model.component import ExportModel
from components.export_model.evaluation_set import MaskTruth
from components.export_model.exportable import load_exportable
from components.export_model.gate import rejection_reason
from components.export_model.main import run
from components.export_model.onnx_export import write_onnx
from components.export_model.predictions import predict_images
from shared.artifacts.manifest import hash_folder
from shared.imaging.resize import enlarge
from shared.instances.postprocess import postprocess
from shared.models.files import save_absent
from shared.models.runtimes.onnx_runtime import onnx_network
from shared.models.runtimes.runtime import open_model
from shared.system.errors import ArtifactError, UserError

IMAGE, TRUTH = wheel_nuclei()[0][..., None], wheel_nuclei()[1]
PARTS = {"a": np.s_[:200, :300], "b": np.s_[256:, :256], "c": np.s_[256:, 256:]}


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("CYTOLOOM_DEVICE", "cpu")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    parts = {key: IMAGE[part] for key, part in PARTS.items()}
    return write_images(tmp_path_factory.mktemp("export") / "images", parts)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def exported(images, model, tmp_path_factory) -> tuple[Path, dict]:
    """The trained segmentor, exported and compared by the truth of two images; the folder and `export.json`."""
    folder = tmp_path_factory.mktemp("exported")
    truth = write_truth(folder / "truth", {key: TRUTH[PARTS[key]] for key in "ab"})
    result, out = export(images, model, folder, truth=truth)
    assert result.values == {"accepted": True}
    metrics = result.metrics
    assert metrics["onnx_max_difference"] < 1e-4 and metrics["onnx_dice"] > 0.7 and metrics["onnx_f1"] > 0.5
    assert metrics["onnx_median_ms_batch_1"] <= metrics["onnx_p95_ms_batch_1"] and metrics["onnx_tiles_per_s"] > 0
    assert "model.onnx agrees" in result.remark and "no GPU" in result.remark
    assert "against the truth" in result.page.html() and "2 images" in result.page.html()
    return out, json.loads((out / "export.json").read_text())


@pytest.mark.parametrize(
    "more",
    [{}, {"downsample": 2}, {"position_grid": 12}, {"rope": True, "registers": 4, "layer_scale": True}],
    ids=["plain", "downsampled", "learned", "rotary"],
)
@pytest.mark.parametrize("kind", ["segmentor", "encoder"])
def test_any_batch_and_any_size_give_what_the_weights_give(tmp_path, kind, more):
    subject = load_exportable(write_random_model(tmp_path / "model", kind, **dict(more)))
    write_onnx(subject, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    reference, step = subject.network("cpu"), subject.metadata.multiple
    for n, rows, columns in ((1, 6, 9), (3, 10, 7), (2, 1, 2)):
        tiles = np.random.default_rng(n).normal(size=(n, 2, rows * step, columns * step)).astype(np.float32)
        expected, found = reference(tiles)[0], session.run(None, {"image": tiles})[0]
        assert found.shape == expected.shape
        assert expected.std() > 1e-3
        np.testing.assert_allclose(found, expected, atol=2e-4 * max(1.0, float(np.abs(expected).max())))


def test_the_exported_segmentor_finds_the_same_cells(exported):
    folder, described = exported
    file = described["files"]["model.onnx"]
    assert file["accepted"] and not file["rejection"] and file["metrics_against"] == "truth"
    assert file["metrics"] == pytest.approx(file["metrics_of_weights"], abs=1e-4)
    image = IMAGE[:128, :128]
    tiles = CONFIG.input.normalisation(image).transpose(2, 0, 1)[None]
    maps = open_model(folder, runtime="onnx").network(np.ascontiguousarray(tiles))[0][0]
    assert postprocess(maps.copy(), image, CONFIG.postprocessing).labels.max() > 3
    np.testing.assert_allclose(maps, predict_maps(image), atol=1e-3)


def test_the_file_describes_itself(exported):
    folder, described = exported
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    [given], [output] = session.get_inputs(), session.get_outputs()
    assert described["input"] == {"name": given.name, "shape": given.shape, "dtype": "float32"}
    assert described["outputs"] == [output.name] and given.shape == ["batch", 1, "height", "width"]
    assert described["multiple"] == 16 and set(described["files"]) == {"model.onnx"}
    properties = session.get_modelmeta().custom_metadata_map
    inside = {name: json.loads(properties[f"cytoloom.{name}"]) for name in described["metadata"]}
    assert inside == described["metadata"]
    assert inside["kind"] == "segmentor" and inside["classes"] == ["foreground", "distance"] and inside["tile"] == 128
    assert inside["normalisation"] == CONFIG.input.normalisation.model_dump(mode="json")
    assert inside["postprocessing"]["foreground_threshold"] == CONFIG.postprocessing.foreground_threshold
    assert "sigmoid" in inside["inside"] and "downsampling" not in inside["inside"] and "tiles" in inside["outside"]


def test_speed_is_measured_and_is_no_payload(exported):
    speed = json.loads((exported[0] / "speed.json").read_text())
    assert set(speed["files"]) == {"weights", "model.onnx"} and speed["tile"][0] == 1
    for rows in speed["files"].values():
        assert [row["batch"] for row in rows] == [1, 4]
        assert all(row["per_second"] == pytest.approx(row["batch"] / row["median_ms"] * 1e3) for row in rows)


def test_instances_are_compared_by_the_models_own_post_processing(tmp_path):
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


def test_equal_models_give_equal_bytes_without_traces_of_the_machine(exported, model, tmp_path):
    write_onnx(load_exportable(model), tmp_path / "again.onnx")
    content = (tmp_path / "again.onnx").read_bytes()
    assert content == (exported[0] / "model.onnx").read_bytes()
    for trace in (str(Path(__file__).parents[2]), sys.prefix, ".py"):
        assert trace.encode() not in content, trace


@pytest.mark.parametrize("kind", ["segmentor", "encoder"])
def test_the_program_of_the_model_card_runs(exported, tmp_path, kind):
    """It needs nothing of this project, and gives what the weights give."""
    model = exported[0] if kind == "segmentor" else write_random_model(tmp_path / "encoder", "encoder")
    subject, image = load_exportable(model), IMAGE[:128, :124]
    if kind == "encoder":
        image = np.concatenate([image, image[::-1]], axis=2)
        write_onnx(subject, tmp_path / "model.onnx")
    else:
        (tmp_path / "model.onnx").write_bytes((exported[0] / "model.onnx").read_bytes())
    tifffile.imwrite(tmp_path / "image.tif", image, photometric="minisblack")
    program, result = usage_program(subject, "model.onnx"), "foreground" if kind == "segmentor" else "features"
    assert program in usage(subject, ["model.onnx"])
    (tmp_path / "use.py").write_text(f"{program}np.save('result.npy', {result})\n")
    subprocess.run([sys.executable, "-I", "use.py"], cwd=tmp_path, check=True)
    found = np.load(tmp_path / "result.npy")
    if kind == "segmentor":
        expected = predict_maps(image)[0] >= 0.5
        assert found.shape == expected.shape and expected.any()
        assert (found == expected).mean() > 0.995  # the program takes percentiles of all pixels, the stage of a sample
    else:
        assert found.shape == (128, 16, 16) and np.isfinite(found).all() and found.std() > 1e-3


def test_the_program_enlarges_images_for_a_model_of_small_cells(exported, tmp_path):
    magnified = CONFIG.model_copy(update={"input": CONFIG.input.model_copy(update={"magnification": 2})})
    subject, image = load_exportable(write_model(tmp_path / "model", magnified)), IMAGE[:64, :62]
    assert subject.metadata.outside[0] == "enlarging images 2 times"
    (tmp_path / "model.onnx").write_bytes((exported[0] / "model.onnx").read_bytes())
    tifffile.imwrite(tmp_path / "image.tif", image, photometric="minisblack")
    program = usage_program(subject, "model.onnx")
    (tmp_path / "use.py").write_text(f"{program}np.save('result.npy', foreground)\n")
    subprocess.run([sys.executable, "-I", "use.py"], cwd=tmp_path, check=True)
    found, expected = np.load(tmp_path / "result.npy"), predict_maps(enlarge(image, 2))[0] >= 0.5
    assert found.shape == expected.shape == (128, 124) and (found == expected).mean() > 0.97


def test_a_file_that_differs_is_deleted(images, model, tmp_path):
    result, out = export(images, model, tmp_path, max_difference=1e-12)
    assert result.values == {"accepted": False} and result.metrics["accepted"] == 0
    assert not (out / "model.onnx").exists() and (out / "model.safetensors").exists()
    assert (out / "MODEL_CARD.md").read_bytes() == (model / "MODEL_CARD.md").read_bytes()
    file = json.loads((out / "export.json").read_text())["files"]["model.onnx"]
    assert not file["accepted"] and "--max_difference 1e-12" in file["rejection"]
    assert file["metrics_against"] == "weights" and file["metrics"] == {"dice": 1.0, "f1": 1.0}
    assert "model.onnx is deleted" in result.remark and file["rejection"] in result.remark
    assert open_model(out).runtime == "pytorch"


def test_a_wrong_normalisation_is_refused(model, tmp_path):
    """By the raw output, and where its limit is wide by Dice."""
    part = PARTS["b"]
    truth = [MaskTruth(TRUTH[part], None, True)]
    file = export_spoilt(model, tmp_path, [IMAGE[part]], truth, before=lambda image: 0.4 * image)
    assert "--max_difference" in file.rejection and file.compared.reference["dice"] > 0.7
    stage = ExportModel(images=tmp_path, model=model, exported=tmp_path, accepted=tmp_path, max_difference=1)
    assert "--tolerance 0.5" in rejection_reason(stage, "float32", file.compared)


def test_an_encoder_is_compared_by_its_features(images, tmp_path):
    result, out = export(images, write_random_model(tmp_path / "encoder", "encoder"), tmp_path)
    assert result.values == {"accepted": True} and result.metrics["onnx_cosine"] > 0.9999
    described = json.loads((out / "export.json").read_text())
    assert described["outputs"] == ["features"] and described["files"]["model.onnx"]["metrics_against"] == "weights"


def test_an_export_is_exported_again_without_leftovers(exported, images, tmp_path):
    (tmp_path / "old").mkdir()
    for path in exported[0].iterdir():
        (tmp_path / "old" / path.name).write_bytes(path.read_bytes())
    for name in ("model.int8.onnx", "model.engine"):
        (tmp_path / "old" / name).write_bytes(b"old")
    _, out = export(images, tmp_path / "old", tmp_path)
    names = {"MODEL_CARD.md", "config.json", "export.json", "model.onnx", "model.safetensors", "speed.json"}
    assert {path.name for path in out.iterdir()} == names
    assert (out / "MODEL_CARD.md").read_text() == (exported[0] / "MODEL_CARD.md").read_text()


def test_tensorrt_always_needs_a_gpu(images, model, tmp_path):
    with pytest.raises(UserError, match="--tensorrt always: there is no GPU; set it to auto or never"):
        export(images, model, tmp_path, tensorrt="always")
    assert not list((tmp_path / "exported").iterdir())


def test_an_absent_model_is_passed_on(images, tmp_path):
    save_absent(tmp_path / "absent", "no image has a class")
    result, out = export(images, tmp_path / "absent", tmp_path)
    assert result.skipped and result.values == {"accepted": False}
    assert json.loads((out / "config.json").read_text()) == {"kind": "absent"}


def test_other_models_and_broken_files_are_refused(model, images, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"kind": "tokenizer"}')
    with pytest.raises(ArtifactError, match=r"'tokenizer'.*'encoder' or 'segmentor'"):
        load_exportable(other)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(ArtifactError, match=r"broken\.onnx: ONNX Runtime cannot load it"):
        onnx_network(tmp_path / "broken.onnx")
    none = write_images(tmp_path / "none", {})
    with pytest.raises(UserError, match="--images: no image to compare on"):
        run(ExportModel(images=none, model=model, exported=other, accepted=other))
    foreign = write_truth(tmp_path / "foreign", {"z": TRUTH})
    with pytest.raises(ArtifactError, match="--truth: 'z' has labels, but is no image of"):
        run(ExportModel(images=images, truth=foreign, model=model, exported=other, accepted=other))
