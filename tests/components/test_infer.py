"""`infer`: what it writes is what other programs read, and the block size leaves no trace."""

import csv
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from components.infer.writers import overlay, write_labels
from pycocotools.coco import COCO
from real_labels import mistakes, wheel_nuclei
from skimage.measure import regionprops
from small_segmentor import CONFIG, trained, write_images, write_model

from components.infer import main
from components.infer.component import Infer
from components.infer.main import run
from shared.artifacts.kinds import Model
from shared.artifacts.manifest import seal, verify
from shared.imaging.overlays import edges
from shared.imaging.region_properties import measure
from shared.instances.postprocess import find
from shared.metrics.pixels import dice_masks
from shared.metrics.tally import tally
from shared.models.backbones.vit import Encoder, save_encoder
from shared.models.tiled_inference import predict_maps
from shared.stage.runner import execute, parse
from shared.system.errors import ArtifactError

IMAGE, TRUTH = wheel_nuclei()
COLOUR = np.stack([IMAGE, IMAGE[::-1], IMAGE // 2], axis=-1)[:100, :140]
SCALE = 0.5


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "m")


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """Lower half of the nuclei (unseen), the same in three channels, floats with holes in them, and nothing at all."""
    odd = (IMAGE[256:400, :150].astype(np.float32) / 1000)[..., None]
    odd[5:9, 5:9] = np.nan
    pictures = {
        "colour": COLOUR,
        "empty": np.zeros((70, 90, 1), np.uint8),
        "nuclei": IMAGE[256:, :300, None],
        "odd": odd,
    }
    return write_images(tmp_path_factory.mktemp("images") / "i", pictures, {"nuclei": SCALE})


def stage(images: Path, model: Path, out: Path, **parameters) -> Infer:
    out.mkdir(parents=True)
    return Infer(images=images, model=model, predictions=out, tile=128, **parameters)


@pytest.fixture(scope="module")
def predicted(images, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("predictions") / "p"
    return out, run(stage(images, model, out))


def cells(folder: Path) -> list[dict[str, str]]:
    with (folder / "cells.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_files_and_numbers(predicted, images):
    out, result = predicted
    keys = ["colour", "empty", "nuclei", "odd"]
    expected = {f"{d}/{k}.{e}" for k in keys for d, e in (("labels", "tif"), ("semantic", "png"), ("overlays", "png"))}
    written = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert written == expected | {"cells.csv", "coco.json"}
    assert result.metrics["images"] == 4 and result.metrics["cells"] == len(cells(out))
    assert result.metrics["cells_per_image"] == len(cells(out)) / 4
    assert all(type(value) is float for value in result.metrics.values())
    html = result.page.html()
    assert html.count("data:image/") == 4 and "<svg" in html and "nuclei.tif" in html


def test_the_cells_are_the_real_ones(predicted):
    out, _ = predicted
    labels = tifffile.imread(out / "labels/nuclei.tif")
    numbers = tally(TRUTH[256:, :300], labels).metrics()
    assert numbers["dice"] > 0.8 and numbers["f1"] > 0.6
    assert not tifffile.imread(out / "labels/empty.tif").any()


def test_label_images_are_those_of_the_probability(predicted):
    out, _ = predicted
    image = IMAGE[256:, :300, None]
    maps = predict_maps(trained(), CONFIG, image, tile=128, batch_size=4, device="cpu")
    expected = find(maps.copy(), image, sure=CONFIG.sure, sharpen="none")
    labels = tifffile.imread(out / "labels/nuclei.tif")
    assert labels.dtype == np.uint16
    assert np.array_equal(labels, expected.cells(CONFIG.saddle))
    semantic = imagecodecs.imread(str(out / "semantic/nuclei.png"))
    assert semantic.dtype == np.uint8 and np.array_equal(semantic, (maps[0] >= 0.5) * 255)
    drawn = imagecodecs.imread(str(out / "overlays/nuclei.png"))
    assert drawn.shape == (*labels.shape, 3) and (drawn[edges(labels)] == (255, 220, 0)).all()


def test_label_tiff_opens_with_its_scale(predicted):
    with tifffile.TiffFile(predicted[0] / "labels/nuclei.tif") as file:
        tags = file.pages[0].tags
        pixels, unit = tags["XResolution"].value, tags["ResolutionUnit"].value
        assert unit.name == "CENTIMETER" and pixels[0] / pixels[1] == pytest.approx(1e4 / SCALE)
        assert file.pages[0].compression.name == "ADOBE_DEFLATE" and "DateTime" not in tags and "Software" not in tags
    opened = imagecodecs.tiff_decode((predicted[0] / "labels/nuclei.tif").read_bytes())  # libtiff, as ImageJ's cousins
    assert np.array_equal(opened, tifffile.imread(predicted[0] / "labels/nuclei.tif"))


def test_cells_csv_as_skimage_measures(predicted, images):
    out, _ = predicted
    rows = cells(out)
    assert [row["image"] for row in rows] == sorted(row["image"] for row in rows)
    for key, image in (("nuclei", IMAGE[256:, :300, None]), ("colour", COLOUR)):
        mine = [row for row in rows if row["image"] == key]
        theirs = regionprops(tifffile.imread(out / f"labels/{key}.tif"), intensity_image=image)
        assert len(mine) == len(theirs) > 2
        for row, prop in zip(mine, theirs, strict=True):
            assert row["source"] == f"{key}.tif" and int(row["label"]) == prop.label
            assert int(row["area_px"]) == prop.area
            assert [int(row[name]) for name in ("y0", "x0", "y1", "x1")] == list(prop.bbox)
            assert [float(row["centroid_y"]), float(row["centroid_x"])] == pytest.approx(prop.centroid, rel=1e-6)
            assert float(row["eccentricity"]) == pytest.approx(prop.eccentricity, abs=1e-5)
            means = [float(row[f"mean_{c}"]) for c in range(image.shape[2])]
            assert means == pytest.approx(np.ravel(prop.intensity_mean), rel=1e-6)
            if key == "nuclei":
                assert row["mean_1"] == "" and float(row["area_um2"]) == pytest.approx(prop.area * SCALE**2)
                assert float(row["centroid_x_um"]) == pytest.approx(prop.centroid[1] * SCALE, rel=1e-6)
            else:
                assert row["area_um2"] == ""


@pytest.mark.parametrize("mistake", ["split", "merged", "same"])
def test_measures_of_every_shape_as_skimage_has_them(mistake, monkeypatch):
    labels = np.unique(mistakes(TRUTH)[mistake], return_inverse=True)[1].reshape(TRUTH.shape).astype(np.uint32)
    labels[0, 0] = labels.max() + 1  # one pixel
    monkeypatch.setattr("shared.imaging.region_properties.ROWS", 100)  # objects across strips
    columns = measure(labels, IMAGE[..., None])
    theirs = regionprops(labels, intensity_image=IMAGE)
    assert columns["eccentricity"] == pytest.approx([prop.eccentricity for prop in theirs], abs=1e-6)
    places = np.stack([columns["centroid_y"], columns["centroid_x"]], axis=1)
    assert places == pytest.approx(np.array([prop.centroid for prop in theirs]))
    assert columns["mean_0"] == pytest.approx([prop.intensity_mean for prop in theirs])
    assert columns["area_px"].tolist() == [prop.area for prop in theirs]


def test_intensities_that_are_not_finite_are_left_out():
    image = np.ones((4, 4, 1), np.float32)
    image[0, 0], image[0, 1], image[1, 1] = np.nan, np.inf, 3
    columns = measure((np.indices((4, 4)).sum(0) < 3).astype(np.uint8), image)
    assert columns["mean_0"].tolist() == [(3 + 3) / 4]


def test_coco_holds_the_same_objects(predicted):
    out, _ = predicted
    coco = COCO(str(out / "coco.json"))
    names = [image["file_name"] for image in coco.dataset["images"]]
    assert names == ["colour.tif", "empty.tif", "nuclei.tif", "odd.tif"]
    for image in coco.dataset["images"]:
        labels = tifffile.imread(out / f"labels/{image['key']}.tif")
        assert (image["height"], image["width"]) == labels.shape
        drawn = np.zeros_like(labels)
        for item in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
            drawn[coco.annToMask(item) > 0] = item["label"]
        assert np.array_equal(drawn, labels)


def test_the_block_size_leaves_no_trace(model, tmp_path):
    """A mosaic of the real image, larger than two blocks, in memory and by way of the disk: the same bytes."""
    mosaic = np.vstack([np.hstack([IMAGE, IMAGE[:, ::-1]]), np.hstack([IMAGE[::-1], IMAGE])])[:610, :777, None]
    images = write_images(tmp_path / "images", {"mosaic": mosaic})
    manifests = {}
    for block in (256, 4096):
        out = tmp_path / f"block{block}"
        run(stage(images, model, out, block=block))
        manifests[block] = seal(out, Model).files
    assert manifests[256] == manifests[4096]
    assert {path.name for path in tmp_path.iterdir()} == {"images", "block256", "block4096"}  # nothing left behind
    labels = tifffile.imread(tmp_path / "block256/labels/mosaic.tif")
    assert labels.shape == (610, 777) and int(labels.max()) > 80


def test_by_the_command_line_the_same_bytes_again(images, model, predicted, tmp_path):
    arguments = ["--images", str(images), "--model", str(model), "--tile", "128"]
    execute(parse(Infer, [*arguments, "--predictions", str(tmp_path / "p"), "--report", str(tmp_path / "r.html")]))
    manifest = verify(tmp_path / "p")
    assert manifest.type == "Predictions" and not manifest.skipped
    for name in manifest.files:
        assert (tmp_path / "p" / name).read_bytes() == (predicted[0] / name).read_bytes(), name
    assert "cells in 4 images" in (tmp_path / "r.html").read_text()


def test_an_encoder_is_refused(images, tmp_path):
    save_encoder(tmp_path / "encoder", Encoder(CONFIG.encoder), CONFIG.encoder, "# Encoder")
    with pytest.raises(ArtifactError, match=r"encoder.*segmentor"):
        run(stage(images, tmp_path / "encoder", tmp_path / "out"))


def test_more_labels_than_uint16_holds(tmp_path):
    labels = np.arange(300 * 300, dtype=np.uint32).reshape(300, 300)
    write_labels(tmp_path / "l.tif", labels, None)
    assert np.array_equal(tifffile.imread(tmp_path / "l.tif"), labels)
    assert tifffile.imread(tmp_path / "l.tif").dtype == np.uint32


def test_overlays_of_large_images_are_scaled_down(monkeypatch):
    monkeypatch.setattr("components.infer.writers.OVERLAY_SIDE", 256)
    drawn = overlay(IMAGE[..., None], TRUTH)
    assert drawn.shape == (256, 256, 3)
    assert dice_masks((drawn == (255, 220, 0)).all(axis=2), edges(TRUTH[1::2, 1::2])) > 0.95


def test_probabilities_lie_on_disk_above_the_block_size(model, images, tmp_path):
    """The array that is predicted into is a memory map just where the image is larger than a block."""
    kinds = []
    for block in (256, 512):
        asked = stage(images, model, tmp_path / str(block), block=block)
        main.maps_of(asked, lambda image, out: kinds.append(type(out)), CONFIG, IMAGE[:, :300, None])
    assert kinds == [np.memmap, np.ndarray]
