"""`export_model` of classifiers and detectors: the gate by accuracy and boxes, mistakes, the model card's program."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import tifffile
import torch
from real_labels import wheel_nuclei
from small_classifier import CONFIG as CLASSIFIER
from small_classifier import crops, trained, write_classifier
from small_export import DETECTOR, export, export_spoilt, write_random_detector
from small_segmentor import write_images

from components.export_model.card import usage_program
from components.export_model.component import ExportModel
from components.export_model.evaluation_set import EvaluationSet
from components.export_model.exportable import load_exportable
from components.export_model.exported_files import ModelExport
from components.export_model.gate import rejection_reason
from components.export_model.onnx_export import write_onnx
from shared.artifacts.kinds import LabelSet, Model
from shared.artifacts.label_set import LabelWriter
from shared.artifacts.manifest import seal
from shared.imaging.normalise import Normalisation
from shared.models.box_predictor import BoxPredictor
from shared.models.class_predictor import ClassPredictor
from shared.models.classifier import Classifier, ClassProbabilities
from shared.models.files import save_model
from shared.models.network import as_network
from shared.models.runtimes.onnx_runtime import onnx_network
from shared.models.runtimes.runtime import open_model

NUCLEI = wheel_nuclei()[0][..., None]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("CYTOLOOM_DEVICE", "cpu")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("classifier") / "model")


@pytest.fixture(scope="module")
def exported(classifier, tmp_path_factory) -> Path:
    """The classifier, exported, INT8 included, by the truth of 80 crops."""
    folder = tmp_path_factory.mktemp("exported")
    images, truth = crops(80, "lower")
    named = {f"crop{i:02}": image for i, image in enumerate(images)}
    with LabelWriter(folder / "truth", "truth") as writer:
        for key, number in zip(named, truth, strict=True):
            writer.classify(key, ("negative", "positive")[number])
    seal(folder / "truth", LabelSet)
    given = {"truth": folder / "truth", "int8": "always", "min_speedup": 0.01, "tolerance": 5}
    result, out = export(write_images(folder / "images", named), classifier, folder, **given)
    assert result.values == {"accepted": True}
    metrics = result.metrics
    assert metrics["onnx_accuracy"] > 0.9 and metrics["onnx_max_difference"] < 1e-4 and 0 <= metrics["onnx_ece"] < 0.2
    assert abs(metrics["int8_accuracy"] - metrics["onnx_accuracy"]) <= 0.05
    assert metrics["int8_max_difference"] > 10 * metrics["onnx_max_difference"]
    return out


def test_a_classifier_runs_by_every_runtime(exported):
    images, truth = crops(40, "lower", seed=3)
    found = {}
    for runtime in ("pytorch", "onnx", "onnx_int8"):
        opened = open_model(exported, runtime=runtime)
        found[runtime] = ClassPredictor(opened.network, opened.config)(images)
    assert (found["pytorch"].probability.argmax(axis=1) == truth).mean() > 0.8
    for name in ("probability", "distance"):
        expected = getattr(found["pytorch"], name)
        np.testing.assert_allclose(getattr(found["onnx"], name), expected, rtol=1e-4, atol=1e-4)
    assert np.abs(found["onnx_int8"].probability - found["pytorch"].probability).mean() < 0.05


def test_the_graph_of_a_classifier_describes_itself(exported):
    model = onnx.load(exported / "model.onnx")
    metadata = open_model(exported, runtime="onnx").metadata
    assert metadata.classes == ("negative", "positive") and metadata.tile == 32 and metadata.multiple is None
    assert "temperature" in metadata.postprocessing and "softmax with temperature" in metadata.inside
    assert [output.name for output in model.graph.output] == ["probability", "distance"]
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    assert sizes[0].dim_param == "batch" and [size.dim_value for size in sizes][1:] == [1, 32, 32]
    assert open_model(exported, runtime="onnx_int8").metadata.precision == "int8"


def test_temperature_is_part_of_the_graph(tmp_path):
    """A classifier of another temperature gives other probabilities, from equal weights."""
    config = trained().config
    warmer = config.model_copy(update={"postprocessing": config.postprocessing.model_copy(update={"temperature": 3.0})})
    folder = write_classifier(tmp_path / "model", warmer)
    write_onnx(load_exportable(folder), folder / "model.onnx")
    images, _ = crops(8, "lower")
    by = {name: open_model(folder, runtime=name) for name in ("pytorch", "onnx")}
    found = {name: ClassPredictor(one.network, one.config)(images).probability for name, one in by.items()}
    np.testing.assert_allclose(found["onnx"], found["pytorch"], atol=1e-4)
    sharper = ClassPredictor.of(trained(), "cpu")(images).probability
    assert found["onnx"].max(axis=1).mean() < sharper.max(axis=1).mean() - 0.01


def test_swapped_classes_are_refused(classifier, tmp_path):
    """By the raw output, and where its limit is wide by accuracy."""
    images, truth = crops(40, "lower")

    def swap(outputs):
        return outputs[0].flip(1), outputs[1]

    file = export_spoilt(classifier, tmp_path, images, [int(k) for k in truth], behind=swap)
    assert "--max_difference" in file.rejection
    given = {"images": tmp_path, "model": classifier, "exported": tmp_path, "accepted": tmp_path, "max_difference": 2}
    assert "accuracy is" in rejection_reason(ExportModel(**given), "float32", file.compared)
    assert file.compared.metrics["accuracy"] < 0.2 < 0.8 < file.compared.reference["accuracy"]


def run_program(
    model: Path, folder: Path, image: np.ndarray, results: str, **expected: object
) -> dict[str, np.ndarray]:
    """Run the program of the model card on an image with numpy, tifffile and onnxruntime alone.

    expected: changes of the config's `input`.
    """
    tifffile.imwrite(folder / "image.tif", image, photometric="minisblack")
    (folder / "model.onnx").write_bytes((model / "model.onnx").read_bytes())
    saved = ", ".join(f"{name}={name}" for name in results.split())
    subject = load_exportable(model)
    config = subject.config.model_copy(update={"input": subject.config.input.model_copy(update=expected)})
    program = usage_program(replace(subject, config=config), "model.onnx")
    (folder / "use.py").write_text(f"{program}np.savez('result.npz', {saved})\n")
    subprocess.run([sys.executable, "-I", "use.py"], cwd=folder, check=True)
    return dict(np.load(folder / "result.npz"))


@pytest.mark.parametrize("side", [20, 48], ids=["enlarged", "reduced"])
def test_the_program_of_a_classifiers_card_runs(exported, tmp_path, side):
    image = crops(2, "lower")[0][1][:side, :side]
    found = run_program(exported, tmp_path, image, "probability distance name")
    expected = ClassPredictor.of(trained(), "cpu")([image])
    np.testing.assert_allclose(found["probability"], expected.probability[0], atol=1e-3)
    np.testing.assert_allclose(found["distance"], expected.distance[0], rtol=1e-3)
    assert str(found["name"]) == ("negative", "positive")[expected.probability[0].argmax()]


def test_a_classifier_with_fixed_limits_gives_the_same_from_its_graph(tmp_path):
    given = CLASSIFIER.input.model_copy(update={"normalisation": Normalisation(fixed=((8.0, 206.0),)), "window_px": 50})
    network, (images, _) = Classifier(CLASSIFIER.model_copy(update={"input": given})), crops(12, "lower")
    network.fit_contrast(torch.rand(8, 1, 32, 32))
    network.fit_reference(torch.randn(40, network.feature_mean.numel()))
    save_model(tmp_path, network.state_dict(), network.config, "# Classifier")
    seal(tmp_path, Model)
    subject = load_exportable(tmp_path)
    write_onnx(subject, tmp_path / "model.onnx")
    assert subject.metadata.outside[0] == "normalisation by fixed limits"
    by = {name: open_model(tmp_path, runtime=name) for name in ("pytorch", "onnx")}
    found, expected = (ClassPredictor(by[name].network, by[name].config)(images) for name in ("onnx", "pytorch"))
    np.testing.assert_allclose(found.probability, expected.probability, atol=1e-4)
    np.testing.assert_allclose(found.distance, expected.distance, rtol=1e-3)
    assert np.ptp(found.probability[:, 0]) > 1e-3


@pytest.mark.parametrize("shape", [(20, 30), (48, 40)], ids=["smaller", "larger than the window"])
def test_the_program_of_a_classifier_with_fixed_limits_and_a_window_runs(exported, tmp_path, shape):
    image = crops(2, "lower")[0][1][: shape[0], : shape[1]]
    given = {"normalisation": Normalisation(fixed=((8.0, 206.0),)), "window_px": 40}
    found = run_program(exported, tmp_path, image, "probability distance", **given)
    network = trained()
    config = network.config.model_copy(update={"input": network.config.input.model_copy(update=given)})
    expected = ClassPredictor(as_network(ClassProbabilities(network.eval()), "cpu"), config)([image])
    np.testing.assert_allclose(found["probability"], expected.probability[0], atol=1e-3)
    np.testing.assert_allclose(found["distance"], expected.distance[0], rtol=1e-3)
    assert load_exportable(exported).metadata.outside[0] == "normalisation by percentiles of the whole image"


@pytest.fixture(scope="module")
def detector(tmp_path_factory) -> Path:
    """A detector with its ONNX file."""
    folder = write_random_detector(tmp_path_factory.mktemp("detector") / "model")
    write_onnx(load_exportable(folder), folder / "model.onnx")
    return folder


def test_a_detector_finds_the_same_boxes_in_images_of_any_size(detector):
    by = {name: open_model(detector, runtime=name) for name in ("pytorch", "onnx")}
    for size in ((64, 64), (150, 100)):
        found = [
            BoxPredictor(one.network, one.config, batch_size=3)(NUCLEI[: size[0], : size[1]]) for one in by.values()
        ]
        assert len(found[0].above(0.3)) == len(found[1].above(0.3)) > 0
        np.testing.assert_allclose(found[0].scores[:5], found[1].scores[:5], atol=1e-3)
        np.testing.assert_allclose(found[0].boxes[:5], found[1].boxes[:5], atol=0.1)
    metadata = by["onnx"].metadata
    assert (
        metadata.outputs == ("scores", "boxes") and metadata.classes == ("large", "small") and metadata.multiple == 32
    )
    assert metadata.postprocessing["score_threshold"] == DETECTOR.postprocessing.score_threshold


def test_the_program_of_a_detectors_card_runs(detector, tmp_path):
    """One tile of a 60 x 50 px image, padded."""
    image = NUCLEI[:60, :50]
    found = run_program(detector, tmp_path, image, "boxes scores names")
    opened = open_model(detector, runtime="pytorch")
    padded = np.pad(image, ((0, 4), (0, 14), (0, 0)), "reflect")
    tile = DETECTOR.input.normalisation.apply(padded, DETECTOR.input.normalisation.limits(image))
    scores, boxes = opened.network(np.ascontiguousarray(tile.transpose(2, 0, 1)[None]))
    kept = scores[0].max(axis=1) >= 0.3
    assert kept.any() and len(found["scores"]) == kept.sum()
    order, expected = np.argsort(-found["scores"]), np.argsort(-scores[0][kept].max(axis=1))
    np.testing.assert_allclose(found["scores"][order], scores[0][kept].max(axis=1)[expected], atol=1e-2)
    np.testing.assert_allclose(found["boxes"][order][0], 64 * boxes[0][kept][expected][0], atol=0.5)
    assert set(found["names"]) <= {"large", "small"}


def write_shifted(model: Path, path: Path, shift: float) -> None:
    """Write the graph of a detector with all boxes moved to the right by a share of the tile."""
    graph = onnx.load(model / "model.onnx")
    boxes = graph.graph.output[1].name
    for node in graph.graph.node:
        node.output[:] = ["boxes_before" if name == boxes else name for name in node.output]
    offset = onnx.numpy_helper.from_array(np.array([shift, 0, shift, 0], np.float32), "offset")
    graph.graph.initializer.append(offset)
    graph.graph.node.append(onnx.helper.make_node("Add", ["boxes_before", "offset"], [boxes]))
    onnx.save(graph, path)


def test_shifted_boxes_are_refused(detector, tmp_path):
    """By the raw output, and where its limit is wide by AP relative to what the weights find."""
    images = [NUCLEI[:64, :128], NUCLEI[64:128, :128]]
    given = {"images": tmp_path, "model": detector, "exported": tmp_path, "accepted": tmp_path, "batch_size": 4}
    made = ModelExport(ExportModel(**given), load_exportable(detector), EvaluationSet(images, [], images), "cpu")
    write_shifted(detector, tmp_path / "shifted.onnx", 0.06)
    found = made.compare_network(onnx_network(tmp_path / "shifted.onnx"), "shifted")[1]
    assert "--max_difference" in rejection_reason(made.stage, "float32", found)
    wide = ExportModel(**given, max_difference=1)
    assert "--min_agreement" in rejection_reason(wide, "float32", found)
    assert found.reference["ap"] == 1 and found.metrics["ap"] < 0.9
    write_shifted(detector, tmp_path / "same.onnx", 0.0)
    same = made.compare_network(onnx_network(tmp_path / "same.onnx"), "same")[1]
    assert rejection_reason(made.stage, "float32", same) == ""


def test_export_json_names_what_was_quantised(exported):
    described = json.loads((exported / "export.json").read_text())["files"]
    assert described["model.int8.onnx"]["quantised"].startswith(("dynamic", "static"))
    operators = {node.op_type for node in onnx.load(exported / "model.int8.onnx").graph.node}
    assert operators & {"MatMulInteger", "DequantizeLinear"}
    assert (exported / "model.int8.onnx").stat().st_size < 0.6 * (exported / "model.onnx").stat().st_size
