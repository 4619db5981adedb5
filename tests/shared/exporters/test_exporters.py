"""Each exporter's files are opened by what its users have."""

import csv
import json
from pathlib import Path
from typing import get_args

import imagecodecs
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from pycocotools.coco import COCO
from real_labels import wheel_nuclei
from skimage.measure import regionprops

from shared.artifacts.annotation import Annotation, ImageClass
from shared.artifacts.image_set import ImageEntry, ImageReader, ImageWriter
from shared.artifacts.kinds import ImageSet
from shared.artifacts.manifest import seal
from shared.exporters import Format
from shared.exporters.exporter import Instances, PredictedImage
from shared.exporters.overlay_png import overlay
from shared.exporters.registry import EXPORTERS, open_exporters
from shared.imaging.overlays import PREDICTION_COLOUR, class_colour, inner_boundaries, outline_boxes
from shared.metrics.pixels import dice_masks

IMAGE, TRUTH = wheel_nuclei()
PLANE, NUCLEI = IMAGE[:200, :260], np.unique(TRUTH[:200, :260], return_inverse=True)[1].reshape(200, 260)
COLOUR = np.stack([IMAGE, IMAGE[::-1], IMAGE // 2], axis=-1)[:100, :140]
PIXEL_SIZE = 0.5
IMAGES = {"colour": COLOUR, "empty": np.zeros((70, 90, 1), np.uint8), "nuclei": PLANE[..., None]}
LABELS = {
    "colour": np.unique(TRUTH[:100, :140], return_inverse=True)[1].reshape(100, 140).astype(np.uint16),
    "empty": np.zeros((70, 90), np.uint16),
    "nuclei": NUCLEI.astype(np.uint16),
}
SCORES = {key: np.linspace(1, 0.25, int(labels.max())) for key, labels in LABELS.items()}
ALL = ("class", "boxes", "instances")


def true_boxes(key: str) -> list[Annotation]:
    """The bounding boxes of the nuclei, called large or small."""
    found = regionprops(LABELS[key])
    middle = np.median([prop.area for prop in found]) if found else 0
    return [
        Annotation(
            "large" if prop.area > middle else "small",
            (prop.bbox[1], prop.bbox[0], prop.bbox[3] - prop.bbox[1], prop.bbox[2] - prop.bbox[0]),
            prop.area_bbox,
            score=float(score),
        )
        for prop, score in zip(found, SCORES[key], strict=True)
    ]


def true_class(key: str) -> ImageClass:
    name, outcome = ("empty", "negative") if key == "empty" else ("cells, many", "positive")
    chances = {"empty": 0.125, "cells, many": 0.875} if outcome == "positive" else {"empty": 0.75, "cells, many": 0.25}
    return ImageClass(name, chances[name], chances, outcome, f"{name} alone is plausible", 1.5)


@pytest.fixture(scope="module")
def entries(tmp_path_factory) -> dict[str, ImageEntry]:
    folder = tmp_path_factory.mktemp("images")
    with ImageWriter(folder) as writer:
        for key, image in IMAGES.items():
            writer.add(key, image, source=f"{key}.tif", um_per_px=PIXEL_SIZE if key == "nuclei" else None)
    seal(folder, ImageSet)
    return ImageReader(folder).entries


def predicted(entries: dict[str, ImageEntry]) -> list[PredictedImage]:
    return [
        PredictedImage(
            number,
            entries[key],
            IMAGES[key],
            true_class(key),
            true_boxes(key),
            Instances((LABELS[key] > 0).astype(np.uint8), LABELS[key], SCORES[key]),
        )
        for number, key in enumerate(sorted(IMAGES), 1)
    ]


def export(folder: Path, formats: list[Format], images: list[PredictedImage]) -> Path:
    folder.mkdir()
    for exporter in open_exporters(formats, ALL, folder, [item.entry for item in images]):
        with exporter:
            for item in images:
                exporter.append(exporter.prepare(item))
    return folder


@pytest.fixture(scope="module")
def exported(entries, tmp_path_factory) -> Path:
    assert set(EXPORTERS) == set(get_args(Format))
    return export(tmp_path_factory.mktemp("exported") / "files", list(EXPORTERS), predicted(entries))


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_every_format_writes_its_files_and_no_others(exported, entries, tmp_path):
    parts = [files(export(tmp_path / name, [name], predicted(entries))) for name in EXPORTERS]
    assert all(parts) and files(exported) == set().union(*parts) and sum(map(len, parts)) == len(files(exported))
    for name in files(exported):
        again = next(tmp_path.glob(f"*/{name}"))
        assert (exported / name).read_bytes() == again.read_bytes(), name


@pytest.mark.parametrize("key", IMAGES)
def test_label_images_open_in_tifffile_and_libtiff(exported, key):
    path = exported / f"labels/{key}.tif"
    for opened in (tifffile.imread(path), imagecodecs.tiff_decode(path.read_bytes())):
        assert opened.dtype == np.uint16 and np.array_equal(opened, LABELS[key])
    with tifffile.TiffFile(path) as file:
        tags = file.pages[0].tags
        assert file.pages[0].compression.name == "ADOBE_DEFLATE" and "DateTime" not in tags and "Software" not in tags
        pixels, unit = tags["XResolution"].value, tags["ResolutionUnit"].value.name
    per_cm = pytest.approx(1e4 / PIXEL_SIZE)
    assert (pixels[0] / pixels[1] == per_cm and unit == "CENTIMETER") == (key == "nuclei")


def test_label_images_hold_more_labels_than_uint16(entries, tmp_path):
    labels = np.arange(300 * 300, dtype=np.uint32).reshape(300, 300)
    found = Instances(labels > 0, labels, np.zeros(90_000))
    item = PredictedImage(1, entries["nuclei"], PLANE[..., None], instances=found)
    opened = tifffile.imread(export(tmp_path / "f", ["label_tiff"], [item]) / "labels/nuclei.tif")
    assert opened.dtype == np.uint32 and np.array_equal(opened, labels)


@pytest.mark.parametrize("key", IMAGES)
def test_the_foreground_opens_in_pillow(exported, key):
    with Image.open(exported / f"semantic/{key}.png") as file:
        assert file.mode == "L" and np.array_equal(np.asarray(file), (LABELS[key] > 0) * 255)


@pytest.mark.parametrize("key", IMAGES)
def test_overlays_show_the_outlines(exported, key):
    with Image.open(exported / f"overlays/{key}.png") as file:
        drawn = np.asarray(file)
    assert drawn.shape == (*LABELS[key].shape, 3)
    boxes = [box.bbox for box in true_boxes(key)]
    boxed = outline_boxes(np.zeros_like(drawn), boxes, (255, 255, 255)).any(axis=2)
    lettered = np.zeros_like(boxed)
    for x, y, *_ in boxes if len(boxes) <= 40 else ():
        lettered[max(y - 12, 0) : y + 12, x : x + 60] = True
    clear = ~boxed & ~lettered
    assert np.array_equal((drawn == PREDICTION_COLOUR).all(axis=2)[clear], inner_boundaries(LABELS[key])[clear])
    colours = {tuple(colour) for colour in drawn[boxed & ~lettered].tolist()}
    assert colours <= {class_colour("large"), class_colour("small")} and (len(colours) == 2) == bool(boxes)


def test_overlays_of_large_images_are_scaled_down():
    drawn = overlay(IMAGE[..., None], TRUTH, max_side=256)
    assert drawn.shape == (256, 256, 3)
    assert dice_masks((drawn == PREDICTION_COLOUR).all(axis=2), inner_boundaries(TRUTH[1::2, 1::2])) > 0.95


def test_the_table_of_cells_is_skimages(exported):
    with (exported / "cells.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == sum(len(scores) for scores in SCORES.values())
    for key, image in IMAGES.items():
        mine, theirs = [row for row in rows if row["image"] == key], regionprops(LABELS[key], intensity_image=image)
        assert len(mine) == len(theirs)
        for row, prop, score in zip(mine, theirs, SCORES[key], strict=True):
            assert row["source"] == f"{key}.tif" and int(row["label"]) == prop.label
            assert int(row["area_px"]) == prop.area
            assert [int(row[name]) for name in ("y0", "x0", "y1", "x1")] == list(prop.bbox)
            assert [float(row["centroid_y"]), float(row["centroid_x"])] == pytest.approx(prop.centroid, rel=1e-6)
            assert float(row["eccentricity"]) == pytest.approx(prop.eccentricity, abs=1e-5)
            assert float(row["score"]) == pytest.approx(score, rel=1e-6)
            means = [float(row[f"mean_{c}"]) for c in range(image.shape[2])]
            assert means == pytest.approx(np.ravel(prop.intensity_mean), rel=1e-6)
            if key == "nuclei":
                assert row["mean_1"] == "" and float(row["area_um2"]) == pytest.approx(prop.area * PIXEL_SIZE**2)
                assert float(row["centroid_x_um"]) == pytest.approx(prop.centroid[1] * PIXEL_SIZE, rel=1e-6)
            else:
                assert row["area_um2"] == ""


def test_without_any_pixel_size_the_table_has_no_micrometres(entries, tmp_path):
    colour = predicted(entries)[:1]
    header = (export(tmp_path / "f", ["cells_csv"], colour) / "cells.csv").read_text().splitlines()[0]
    assert "mean_2" in header and "um" not in header.replace("number", "")


def test_coco_opens_in_pycocotools(exported):
    coco = COCO(str(exported / "coco.json"))
    assert [image["file_name"] for image in coco.dataset["images"]] == [f"{key}.tif" for key in sorted(IMAGES)]
    assert len({item["id"] for item in coco.dataset["annotations"]}) == len(coco.dataset["annotations"])
    for image in coco.dataset["images"]:
        labels, scores = LABELS[image["key"]], SCORES[image["key"]]
        assert (image["height"], image["width"]) == labels.shape
        drawn = np.zeros_like(labels)
        for item in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
            drawn[coco.annToMask(item) > 0] = item["label"]
            assert item["score"] == pytest.approx(scores[item["label"] - 1], abs=5e-5)
        assert np.array_equal(drawn, labels)


def test_coco_of_an_interrupted_run_is_no_json(entries, tmp_path):
    with pytest.raises(KeyError), open_exporters(["coco_json"], ALL, tmp_path, list(entries.values()))[0] as exporter:
        exporter.append(exporter.prepare(predicted(entries)[0]))
        raise KeyError
    with pytest.raises(json.JSONDecodeError):
        json.loads((tmp_path / "coco.json").read_text())


def test_boxes_open_in_pycocotools_and_pandas(exported):
    coco = COCO(str(exported / "detections.coco.json"))
    names = {row["id"]: row["name"] for row in coco.dataset["categories"]}
    assert set(names.values()) == {"large", "small"}
    table = pd.read_csv(exported / "detections.csv")
    for image in coco.dataset["images"]:
        expected, found = true_boxes(image["key"]), coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert [names[row["category_id"]] for row in found] == [box.category for box in expected]
        assert [tuple(row["bbox"]) for row in found] == [box.bbox for box in expected]
        assert [row["score"] for row in found] == pytest.approx([box.score for box in expected], abs=5e-5)
        rows = table[table["image"] == image["key"]]
        assert list(rows["class"]) == [box.category for box in expected]
        corners = [(x, y, x + width, y + height) for x, y, width, height in (box.bbox for box in expected)]
        assert [tuple(row) for row in rows[["x0", "y0", "x1", "y1"]].to_numpy()] == corners
        assert list(rows["area_px"]) == [box.area for box in expected]
    ours = table[table["image"] == "nuclei"]
    assert list(ours["area_um2"]) == pytest.approx(list(ours["area_px"] * PIXEL_SIZE**2))
    results = coco.loadRes([row | {"id": 0} for row in coco.dataset["annotations"]])
    assert len(results.getAnnIds()) == sum(map(len, SCORES.values())), "as results of a detector"


def test_classes_and_summary_open_in_pandas(exported):
    classes, summary = (pd.read_csv(exported / f"{name}.csv").set_index("image") for name in ("classes", "summary"))
    for key in IMAGES:
        row, expected = classes.loc[key], true_class(key)
        assert (row["class"], row["outcome"], row["reason"]) == (expected.name, expected.outcome, expected.reason)
        assert {name: row[f"p_{name}"] for name in expected.probabilities} == expected.probabilities
        assert row["distance"] == expected.distance and row["source"] == f"{key}.tif"
        assert (summary.loc[key, "cells"], summary.loc[key, "boxes"]) == (len(SCORES[key]), len(SCORES[key]))
    assert summary.loc["nuclei", "median_area_px"] == np.median([prop.area for prop in regionprops(LABELS["nuclei"])])


def test_images_without_objects_searched_for_are_not_images_with_none(entries, tmp_path):
    """Gated: only one image went to the detector and the segmentor."""
    images = predicted(entries)
    for item in images[1:]:
        item.boxes = item.instances = None
    folder = export(tmp_path / "f", list(EXPORTERS), images)
    for name in ("coco.json", "detections.coco.json"):
        assert [image["key"] for image in json.loads((folder / name).read_text())["images"]] == ["colour"]
    for name in ("labels", "overlays", "semantic"):
        assert [path.stem for path in (folder / name).iterdir()] == ["colour"]
    summary = pd.read_csv(folder / "summary.csv").set_index("image")
    assert summary["cells"].isna().to_dict() == {"colour": False, "empty": True, "nuclei": True}
    assert len(pd.read_csv(folder / "classes.csv")) == 3


@pytest.mark.parametrize("content", ALL)
def test_formats_without_contents_are_left_out(entries, content, tmp_path):
    found = open_exporters(list(EXPORTERS), [content], tmp_path, list(entries.values()))
    for exporter in found:
        with exporter:
            pass
    written = {path.name for path in tmp_path.iterdir()}
    expected = {
        "class": {"classes.csv", "summary.csv"},
        "boxes": {"detections.csv", "detections.coco.json", "summary.csv", "overlays"},
        "instances": {"labels", "semantic", "overlays", "cells.csv", "coco.json", "summary.csv"},
    }
    assert written == expected[content]
