"""The gate of `export_model`: differences, metrics, limits, speed, and the ladder of precisions."""

import json
from pathlib import Path

import numpy as np
import pytest
from real_labels import wheel_nuclei
from small_export import export, write_random_detector, write_random_model
from small_segmentor import write_images, write_model, write_truth

from components.export_model.comparison import Comparison, compare, max_difference
from components.export_model.component import ExportModel
from components.export_model.evaluation_set import EvaluationSet, MaskTruth, read_evaluation_set
from components.export_model.exportable import load_exportable
from components.export_model.exported_files import ModelExport
from components.export_model.gate import rejection_reason
from components.export_model.int8_export import FOR_CPU, FOR_TENSORRT, write_int8
from components.export_model.onnx_export import write_onnx
from components.export_model.predictions import Predictions
from components.export_model.tensorrt_engine import precisions_from, profile_shapes
from components.export_model.timing import time_networks
from shared.artifacts.annotation import Annotation
from shared.artifacts.kinds import LabelSet
from shared.artifacts.label_set import LabelWriter
from shared.artifacts.manifest import seal
from shared.models.runtimes.onnx_runtime import onnx_network

IMAGE, TRUTH = wheel_nuclei()[0][..., None], wheel_nuclei()[1]


@pytest.fixture(autouse=True)
def on_the_cpu(monkeypatch):
    monkeypatch.setenv("CYTOLOOM_DEVICE", "cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """The trained segmentor with its ONNX file."""
    folder = write_model(tmp_path_factory.mktemp("gate") / "model")
    write_onnx(load_exportable(folder), folder / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def subject(model):
    return load_exportable(model)


def stage(folder: Path, **given) -> ExportModel:
    paths = dict.fromkeys(("images", "model", "exported", "accepted"), folder)
    return ExportModel(**paths | {"batch_size": 4} | given)


def test_every_limit_rejects(tmp_path):
    given = stage(tmp_path, max_difference=0.1, tolerance=1, min_agreement=0.9)
    good = {"dice": 0.8, "f1": 0.7}
    fine = Comparison(0.05, {"dice": 0.795, "f1": 0.9}, good, "truth")
    assert rejection_reason(given, "float32", fine) == "", "one point less, and more"
    assert rejection_reason(given, "float32", Comparison(0.05, {"dice": 0.95}, {"dice": 1.0}, "weights")) == ""
    for compared, limit in (
        (Comparison(0.2, good, good, "truth"), "max_difference"),
        (Comparison(0.05, {"dice": 0.789, "f1": 0.7}, good, "truth"), "tolerance"),
        (Comparison(0.05, {"ece": 0.03}, {"ece": 0.015}, "truth"), "tolerance"),
        (Comparison(0.05, {"dice": np.nan}, good, "truth"), "tolerance"),
        (Comparison(0.05, {"dice": 0.89}, {"dice": 1.0}, "weights"), "min_agreement"),
    ):
        assert f"--{limit}" in rejection_reason(given, "float32", compared)
    assert rejection_reason(given, "int8", Comparison(0.2, good, good, "truth")) == "", "8 bits are less exact"
    assert "not finite" in rejection_reason(given, "int8", Comparison(np.inf, good, good, "truth"))
    lower_ece = Comparison(0.05, {"ece": 0.01}, {"ece": 0.03}, "truth")
    assert rejection_reason(given, "float32", lower_ece) == "" and lower_ece.loss_points()["ece"] == pytest.approx(-2)


def test_differences_are_measured(subject):
    labels = np.zeros((40, 40), np.int32)
    labels[5:15, 5:15], labels[20:30, 20:30] = 1, 2
    moved = np.roll(labels, 8, axis=1)
    maps = np.zeros((1, 2, 40, 40), np.float32)
    nothing = EvaluationSet([IMAGE], [], [])
    reference = Predictions({b"a": (maps,)}, [labels])
    assert compare(reference, reference, subject, nothing).metrics == {"dice": 1, "f1": 1}
    other = compare(Predictions({b"a": (maps + 0.25,)}, [moved]), reference, subject, nothing)
    assert other.max_difference == 0.25 and other.metrics == pytest.approx({"dice": 0.2, "f1": 0})
    against = compare(reference, reference, subject, EvaluationSet([IMAGE], [MaskTruth(moved, None, True)], []))
    assert against.against == "truth" and against.metrics == pytest.approx({"dice": 0.2, "f1": 0})
    assert against.reference == against.metrics
    for broken in (np.full_like(maps, np.nan), maps + np.inf):
        assert max_difference(Predictions({b"a": (broken,)}), reference, subject) == np.inf
    assert max_difference(Predictions({b"b": (maps,)}), reference, subject) == np.inf, "of another input"


def test_the_order_of_queries_is_no_difference(tmp_path):
    detector = load_exportable(write_random_detector(tmp_path / "model"))
    rng = np.random.default_rng(0)
    scores, boxes = rng.random((2, 20, 2), np.float32), rng.random((2, 20, 4), np.float32)
    reference = Predictions({b"a": (scores, boxes)})
    order = rng.permutation(20)
    assert max_difference(Predictions({b"a": (scores[:, order], boxes[:, order])}), reference, detector) == 0
    shifted = Predictions({b"a": (scores, boxes + np.float32(0.01))})
    assert max_difference(shifted, reference, detector) == pytest.approx(0.01, abs=1e-4)
    lost = scores.copy()
    lost[1, 3] = 0
    assert max_difference(Predictions({b"a": (lost, boxes)}), reference, detector) > 0.01


def test_networks_are_timed_in_turns():
    calls = []

    def network(name):
        return lambda images: calls.append((name, images.shape)) or (images,)

    found = time_networks({name: network(name) for name in "ab"}, np.zeros((1, 2, 8, 8), np.float32), (1, 3))
    assert [name for name, _ in calls[:4]] == ["a", "b", "a", "b"]
    assert {shape for _, shape in calls} == {(1, 2, 8, 8), (3, 2, 8, 8)}
    for timings in found.values():
        assert [timing.batch for timing in timings] == [1, 3]
        assert all(
            timing.runs == 50 and 0 < timing.median_ms <= timing.p95_ms and timing.cpu_ms > 0 for timing in timings
        )


def test_an_int8_file_has_equal_bytes_for_equal_input_and_is_near_the_weights(model, subject, tmp_path):
    rng = np.random.default_rng(0)
    tiles = [rng.normal(0.3, 0.3, (1, 1, 64, 64)).astype(np.float32) for _ in range(2)]
    (expected,) = subject.network("cpu")(tiles[0])
    contents = set()
    for quantisation in (*FOR_CPU, FOR_TENSORRT):
        path = tmp_path / "model.int8.onnx"
        write_int8(subject, model / "model.onnx", path, tiles, quantisation)
        contents.add(path.read_bytes())
        (found,) = onnx_network(path)(tiles[0])
        assert 1e-6 < np.abs(found - expected).mean() < 0.03, quantisation.name
    assert len(contents) == len(FOR_CPU) + 1
    write_int8(subject, model / "model.onnx", path, tiles, FOR_TENSORRT)
    assert path.read_bytes() in contents


def test_a_slow_int8_file_is_refused_with_the_figure(model, tmp_path):
    images = write_images(tmp_path / "images", {"a": IMAGE[:128, :128], "b": IMAGE[256:384, :128]})
    result, out = export(images, model, tmp_path, int8="always", min_speedup=100, max_images=1, min_agreement=0)
    assert result.values == {"accepted": False} and result.metrics["int8_speedup"] < 100
    figure = f"{result.metrics['int8_speedup']:.2f} times the speed of model.onnx"
    assert f"model.int8.onnx is deleted: too slow (--min_speedup 100), {figure}" in result.remark
    assert not (out / "model.int8.onnx").exists() and (out / "model.onnx").exists()
    described = json.loads((out / "export.json").read_text())["files"]["model.int8.onnx"]
    assert described["rejection"] == "too slow (--min_speedup 100)" and len(described["refused_before"]) == 3
    assert "Refused before" in result.page.html()


def test_an_inexact_quantisation_is_made_again_more_exactly(tmp_path):
    """The limit lies between what the first two ways of quantising reach; only the first quantises the patches."""
    encoder = load_exportable(write_random_model(tmp_path / "encoder", "encoder"))
    pair = np.concatenate([IMAGE[:128, :128], IMAGE[128:256, :128]], axis=2)
    evaluation, reached = EvaluationSet([pair], [], [pair]), []
    export_all = ModelExport(stage(tmp_path, min_speedup=0.01, min_agreement=0), encoder, evaluation, "cpu")
    onnx = export_all.onnx()
    for quantisation in FOR_CPU[:2]:
        reached.append(export_all._int8(quantisation).compared.metrics["cosine"])
    assert 0.9 < reached[0] < reached[1] < 1
    strict = stage(tmp_path, min_speedup=0.01, min_agreement=sum(reached) / 2)
    file = ModelExport(strict, encoder, evaluation, "cpu").int8(onnx)
    assert file.accepted and file.method == FOR_CPU[1].name and file.speedup > 0.01
    [attempt] = file.attempts
    assert attempt.startswith(FOR_CPU[0].name) and "--min_agreement" in attempt


def test_precisions_rise_where_an_engine_is_refused():
    assert precisions_from("int8") == ("int8", "float16", "float32")
    assert precisions_from("float16") == ("float16", "float32") and precisions_from("float32") == ("float32",)


def test_an_engine_takes_the_tiles_that_are_predicted(subject):
    assert profile_shapes(subject, 8) == [(1, 1, 16, 16), (8, 1, 128, 128), (8, 1, 160, 160)]


def test_truth_and_images_are_chosen(subject, model, tmp_path):
    parts = {key: IMAGE[:64, 64 * i : 64 * i + 64] for i, key in enumerate("abcdef")}
    images = write_images(tmp_path / "images", parts)
    truth = write_truth(tmp_path / "truth", {key: TRUTH[:64, 64 * i : 64 * i + 64] for i, key in enumerate("abc")})
    given = {"images": images, "model": model, "exported": tmp_path, "accepted": tmp_path, "calibration_images": 2}
    chosen = read_evaluation_set(ExportModel(**given, truth=truth, max_images=2), subject)
    assert len(chosen.images) == len(chosen.truth) == 2 and np.array_equal(chosen.images[0], parts["a"])
    assert len(chosen.calibration) == 2
    for image in chosen.calibration:
        assert not any(np.array_equal(image, other) for other in chosen.images)
    without = read_evaluation_set(ExportModel(**given), subject)
    assert len(without.images) == 6 and without.truth == []


def test_boxes_of_a_large_image_are_cut_like_its_centre(tmp_path):
    detector = load_exportable(write_random_detector(tmp_path / "model"))
    images = write_images(tmp_path / "images", {"a": np.zeros((1224, 1224, 1), np.uint8)})
    boxes = [
        Annotation("small", (200.0, 300.0, 40.0, 20.0), 800.0),
        Annotation("small", (90.0, 300.0, 20.0, 20.0), 400.0),
        Annotation("large", (60.0, 300.0, 45.0, 20.0), 900.0),
        Annotation("large", (10.0, 10.0, 20.0, 20.0), 400.0),
    ]
    with LabelWriter(tmp_path / "truth", "truth") as writer:
        writer.annotate("a", (1224, 1224), boxes)
    seal(tmp_path / "truth", LabelSet)
    given = {"images": images, "truth": tmp_path / "truth", "model": tmp_path, "exported": tmp_path}
    [found] = read_evaluation_set(ExportModel(**given, accepted=tmp_path), detector).truth
    assert [(item.bbox, item.iscrowd) for item in found] == [
        ((100.0, 200.0, 40.0, 20.0), 0),
        ((0.0, 200.0, 10.0, 20.0), 0),
        ((0.0, 200.0, 5.0, 20.0), 1),
    ]
