"""`infer`: its instances are those of the network's maps, and the block size changes nothing."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from pydantic import ValidationError
from real_labels import wheel_nuclei
from scipy import ndimage
from small_segmentor import CONFIG, predict_maps, write_encoder, write_images, write_model

from components.infer.component import Infer
from components.infer.instance_predictor import InstancePredictor
from components.infer.main import run
from shared.artifacts.image_set import ImageReader
from shared.artifacts.kinds import Files, LabelSet
from shared.artifacts.label_set import LabelReader
from shared.artifacts.manifest import seal, verify
from shared.instances.postprocess import postprocess
from shared.metrics.tally import tally
from shared.models.runtimes.runtime import open_model
from shared.stage.runner import execute, parse
from shared.system.errors import ArtifactError

IMAGE, TRUTH = wheel_nuclei()
NUCLEI = IMAGE[256:, :300, None]
COLOUR = np.stack([IMAGE, IMAGE[::-1], IMAGE // 2], axis=-1)[:100, :140]
KEYS = ["colour", "empty", "nuclei", "odd"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Lower half of the nuclei (unseen), the same in three channels, floats with holes in them, and nothing at all."""
    odd = (IMAGE[256:400, :150].astype(np.float32) / 1000)[..., None]
    odd[5:9, 5:9] = np.nan
    pictures = {"colour": COLOUR, "empty": np.zeros((70, 90, 1), np.uint8), "nuclei": NUCLEI, "odd": odd}
    return write_images(tmp_path_factory.mktemp("images") / "i", pictures, {"nuclei": 0.5})


def stage(images: Path, model: Path, out: Path, **parameters) -> Infer:
    for name in ("predictions", "files"):
        (out / name).mkdir(parents=True)
    return Infer(images=images, segmentor=model, predictions=out / "predictions", files=out / "files", **parameters)


@pytest.fixture(scope="module")
def predicted(images, model, tmp_path_factory):
    """The folder with `predictions` and `files`, both sealed, and the Result."""
    out = tmp_path_factory.mktemp("predicted") / "p"
    result = run(stage(images, model, out))
    seal(out / "predictions", LabelSet)
    seal(out / "files", Files)
    return out, result


def predict(images: Path, model: Path, out: Path, **parameters) -> LabelReader:
    run(stage(images, model, out, formats=[], **parameters))
    seal(out / "predictions", LabelSet)
    return LabelReader(out / "predictions")


def test_predictions_are_a_label_set_and_the_files_hold_the_same(predicted):
    out, result = predicted
    reader = LabelReader(out / "predictions")
    assert reader.info.origin == "prediction" and reader.keys() == KEYS
    for key in KEYS:
        assert reader.entries[key].kind == "instances"
        assert np.array_equal(reader.mask(key), tifffile.imread(out / f"files/labels/{key}.tif"))
        mask = imagecodecs.imread(str(out / f"files/semantic/{key}.png"))
        assert not (reader.mask(key) > 0)[mask == 0].any()
    counts = {key: int(reader.mask(key).max()) for key in KEYS}
    assert counts["empty"] == 0 and min(counts["nuclei"], counts["colour"], counts["odd"]) > 0
    assert result.metrics["images"] == 4 and result.metrics["cells"] == sum(counts.values())
    assert result.metrics["cells_per_image"] == sum(counts.values()) / 4
    areas = np.concatenate([np.unique(reader.mask(key), return_counts=True)[1][1:] for key in KEYS])
    assert result.metrics["median_area_px"] == np.median(areas)
    assert all(type(value) is float for value in result.metrics.values())
    of_segmentor = {"trusted", "estimated_dice", "unlike", "images", "cells"}
    assert of_segmentor == set(Infer.headlines) & set(result.metrics), "of a segmentor alone"
    assert result.page.html().count("data:image/") == 4 and 0 <= result.metrics["waiting_share"] < 1


def test_the_cells_are_the_real_ones(predicted):
    numbers = tally(TRUTH[256:, :300], LabelReader(predicted[0] / "predictions").mask("nuclei")).metrics()
    assert numbers["dice"] > 0.8 and numbers["f1"] > 0.6


def test_scores_are_the_mean_foreground_probability(predicted):
    reader = LabelReader(predicted[0] / "predictions")
    for key, image in (("nuclei", NUCLEI), ("colour", COLOUR)):
        labels, scores = reader.mask(key), reader.entries[key].scores
        probability = predict_maps(image)[0]
        means = ndimage.mean(probability, labels, np.arange(1, int(labels.max()) + 1))
        assert len(scores) == labels.max() and 0.5 < min(scores) <= max(scores) <= 1
        assert scores == pytest.approx(means, abs=0.5 / 255 + 1e-4)
    assert reader.entries["empty"].scores == ()


def test_instances_are_those_of_the_maps_and_the_models_settings(predicted):
    expected = postprocess(predict_maps(NUCLEI), NUCLEI, CONFIG.postprocessing)
    labels = LabelReader(predicted[0] / "predictions").mask("nuclei")
    assert np.array_equal(labels, expected.labels)
    mask = imagecodecs.imread(str(predicted[0] / "files/semantic/nuclei.png"))
    assert np.array_equal(mask, expected.mask * 255)


def test_auto_is_the_models_setting_and_a_value_overrides_it(images, tmp_path):
    strict = CONFIG.postprocessing.model_copy(update={"foreground_threshold": 0.8, "min_area_px": 60})
    config = CONFIG.model_copy(update={"postprocessing": strict})
    model = write_model(tmp_path / "strict", config)
    maps = predict_maps(NUCLEI)
    given = {
        "auto": ({}, strict),
        "value": ({"foreground_threshold": 0.4}, strict.model_copy(update={"foreground_threshold": 0.4})),
        "zero": ({"min_area_px": 0}, strict.model_copy(update={"min_area_px": 0})),
    }
    found = {}
    for name, (parameters, settings) in given.items():
        found[name] = predict(images, model, tmp_path / name, **parameters).mask("nuclei")
        assert np.array_equal(found[name], postprocess(maps.copy(), NUCLEI, settings).labels), name
    assert (found["value"] > 0).sum() > (found["auto"] > 0).sum() and found["zero"].max() > found["auto"].max()


def test_hysteresis_of_the_model_can_be_switched_off(images, tmp_path):
    """`high_threshold=0` once meant: as the model says."""
    settings = CONFIG.postprocessing.model_copy(update={"high_threshold": 0.95})
    model = write_model(tmp_path / "model", CONFIG.model_copy(update={"postprocessing": settings}))
    counts = {
        name: predict(images, model, tmp_path / name, **parameters).mask("nuclei").max()
        for name, parameters in (("auto", {}), ("off", {"high_threshold": 0}), ("same", {"high_threshold": 0.95}))
    }
    plain = postprocess(predict_maps(NUCLEI), NUCLEI, CONFIG.postprocessing).labels.max()
    assert counts["off"] == plain > counts["auto"] == counts["same"]


@pytest.mark.parametrize("formats", [[], ["cells_csv"], ["overlay_png", "label_tiff"]])
def test_only_the_chosen_formats_are_written(images, model, predicted, formats, tmp_path):
    run(stage(images, model, tmp_path, formats=formats))
    parts = {"cells_csv": {"cells.csv"}, "overlay_png": {"overlays"}, "label_tiff": {"labels"}}
    written = {path.name for path in (tmp_path / "files").iterdir()}
    assert written == set().union(*(parts[name] for name in formats))
    for path in (tmp_path / "files").rglob("*.*"):
        assert path.read_bytes() == (predicted[0] / "files" / path.relative_to(tmp_path / "files")).read_bytes()


def test_an_unknown_format_is_refused_with_the_list_of_those_known(images, model, tmp_path):
    with pytest.raises(ValidationError) as caught:
        stage(images, model, tmp_path, formats=["label_tiff", "geojson"])
    [error] = caught.value.errors()
    assert error["loc"] == ("formats", 1) and "cells_csv" in error["msg"]


def test_images_are_rescaled_only_where_both_pixel_sizes_are_known(tmp_path):
    """The model was trained at 0.5 um/px. An image at 0.25 um/px shows the same nuclei twice as large."""
    half = IMAGE[256:400, :160, None]
    large = np.kron(half[..., 0], np.ones((2, 2), half.dtype))[..., None]
    images = write_images(tmp_path / "images", {"known": large, "unknown": large}, {"known": 0.25})
    scaled = CONFIG.model_copy(update={"input": CONFIG.input.model_copy(update={"um_per_px": 0.5})})
    found = {}
    for name, config in (("scaled", scaled), ("unscaled", CONFIG)):
        model = write_model(tmp_path / name, config)
        for rescale in ("never", "um_per_px"):
            reader = predict(images, model, tmp_path / f"{name}-{rescale}", rescale=rescale)
            found[name, rescale] = {key: reader.mask(key) for key in ("known", "unknown")}
    as_it_is = found["scaled", "never"]["known"]
    assert np.array_equal(found["scaled", "um_per_px"]["unknown"], as_it_is), "the image's size is not known"
    assert np.array_equal(found["unscaled", "um_per_px"]["known"], as_it_is), "the model's size is not known"
    rescaled = found["scaled", "um_per_px"]["known"]
    assert rescaled.shape == large.shape[:2] and not np.array_equal(rescaled, as_it_is)
    truth = np.kron(TRUTH[256:400, :160], np.ones((2, 2), TRUTH.dtype))
    assert tally(truth, rescaled).metrics()["f1"] > tally(truth, as_it_is).metrics()["f1"]


def test_the_block_size_leaves_no_trace(model, tmp_path):
    """A mosaic of the real image, larger than two blocks, in memory and by way of the disk: the same bytes."""
    mosaic = np.vstack([np.hstack([IMAGE, IMAGE[:, ::-1]]), np.hstack([IMAGE[::-1], IMAGE])])[:610, :777, None]
    images = write_images(tmp_path / "images", {"mosaic": mosaic})
    manifests = []
    for block in (256, 4096):
        out = tmp_path / f"block{block}"
        run(stage(images, model, out, block=block))
        assert {path.name for path in out.iterdir()} == {"predictions", "files"}  # nothing left behind
        manifests.append((seal(out / "predictions", LabelSet).files, seal(out / "files", Files).files))
    assert manifests[0] == manifests[1]
    labels = tifffile.imread(tmp_path / "block256/files/labels/mosaic.tif")
    assert labels.shape == (610, 777) and int(labels.max()) > 80


def test_maps_lie_on_disk_above_the_block_size(model, images, tmp_path):
    for block, kind in ((256, np.memmap), (512, np.ndarray)):
        predictor = InstancePredictor(
            stage(images, model, tmp_path / str(block), block=block), open_model(model, runtime="pytorch")
        )
        entry = ImageReader(images).entries["nuclei"].model_copy(update={"um_per_px": None})
        assert type(predictor.maps(IMAGE[:, :300, None], entry)) is kind


def test_by_the_command_line_the_same_bytes_again(images, model, predicted, tmp_path):
    given = {"images": images, "segmentor": model, "predictions": tmp_path / "p", "files": tmp_path / "f"}
    given["report"] = tmp_path / "r.html"
    execute(parse(Infer, [str(word) for name, path in given.items() for word in (f"--{name}", path)]), run)
    for name, kind, out in (("predictions", "LabelSet", tmp_path / "p"), ("files", "Files", tmp_path / "f")):
        manifest = verify(out)
        assert manifest.type == kind and not manifest.skipped
        assert manifest.digest == verify(predicted[0] / name).digest
    assert (tmp_path / "r.html").stat().st_size > 1000


def test_an_encoder_is_refused(images, tmp_path):
    encoder = write_encoder(tmp_path / "encoder")
    with pytest.raises(ArtifactError, match=r"encoder.*segmentor"):
        run(stage(images, encoder, tmp_path / "out"))
