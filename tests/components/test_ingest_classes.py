"""`ingest` of classes: crops of boxes, tables of classes, COCO files of classes; and boxes that are not usable."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from bad_images import picture
from image_files import random
from ingest_run import Outcome, ingest, real, some
from PIL import Image

from shared.artifacts.label_set import LabelReader
from shared.artifacts.manifest import image_count
from shared.readers.labels.voc import voc_annotations
from shared.system.errors import UserError

SMEARS = ("BloodImage_00338.*", "BloodImage_0033[4-7].*")


def smears(folder: Path) -> Path:
    """Some images of BCCD, of both splits; one has a box without area."""
    some(real("bccd/val"), folder / "val", *SMEARS)
    some(real("bccd/train"), folder / "train", "BloodImage_0000[1-4].*")
    return folder


@pytest.fixture(scope="module")
def crops(tmp_path_factory) -> Outcome:
    folder = tmp_path_factory.mktemp("crops")
    return ingest(smears(folder / "in"), folder / "out", crops="boxes", crop_margin=0.1)


def test_every_box_becomes_an_image_with_the_class_of_the_box(crops):
    expected = Counter()
    for path in crops.out.parent.glob("in/*/*.xml"):
        for number, item in enumerate(voc_annotations(path, (480, 640)).found, 1):
            source = f"{path.parent.name}/{path.stem}.jpg#box{number}"
            key = crops.sources()[source]
            entry, pixels = crops.images.entries[key], crops.images.read(key)
            assert crops.labels.classes()[key] == item.category and entry.split == path.parent.name
            x, y, width, height = item.bbox
            whole = np.asarray(Image.open(path.with_suffix(".jpg")))
            y0, x0 = max(0, int(np.floor(y - 0.1 * height))), max(0, int(np.floor(x - 0.1 * width)))
            y1, x1 = int(np.ceil(y + 1.1 * height)), int(np.ceil(x + 1.1 * width))
            part = whole[y0:y1, x0:x1]
            assert pixels.shape == part.shape and np.abs(pixels.astype(int) - part).mean() < 3  # other JPEG decoders
            expected[item.category] += 1
    assert Counter(crops.labels.classes().values()) == expected and set(expected) == {"RBC", "WBC", "Platelets"}
    assert crops.result.metrics["images"] == crops.result.metrics["labelled"] == expected.total() > 80
    assert crops.result.metrics["boxes"] == 0 and "crops of boxes of 6 images" in crops.result.remark


def test_crops_of_one_image_are_one_group_and_one_split(crops):
    """All images are of one group, so a division by group must not tear an image's crops apart."""
    by_image: dict[str, set[tuple[str, str]]] = {}
    for entry in crops.images.entries.values():
        by_image.setdefault(entry.source.split("#")[0], set()).add((entry.group, entry.split))
    assert all(len(found) == 1 for found in by_image.values())
    assert len({found for several in by_image.values() for found in several}) == len(by_image) == 6


def test_groups_that_the_images_have_are_kept(tmp_path):
    for slide in ("s1", "s4"):
        some(real("bccd/val"), tmp_path / "in" / slide, f"BloodImage_0033{slide[1]}.*")
    done = ingest(tmp_path / "in", tmp_path / "out", crops="boxes")
    assert {entry.group for entry in done.images.entries.values()} == {"s1", "s4"}


def test_a_box_without_area_is_listed(crops):
    assert "degenerate" in crops.rejects["val/BloodImage_00338.jpg"]
    assert crops.result.metrics["label_rejects"] == 1 and crops.result.metrics["rejects"] == 0


def test_crops_are_the_same_again(crops, tmp_path):
    again = ingest(crops.out.parent / "in", tmp_path / "out", crops="boxes", crop_margin=0.1)
    assert again.digests == crops.digests


def test_the_page_names_the_classes(crops):
    html = crops.result.page.html()
    assert html.count("<figure>") == 12 and "; class RBC" in html


def coco_folder(folder: Path, annotations: list[dict], names: tuple[str, ...] = ("a.png",), **fields: object) -> Path:
    """A folder with 16-bit images of 80 x 60 px and a COCO file."""
    folder.mkdir(parents=True)
    for name in names:
        Image.fromarray(random(60, 80, dtype=np.uint16)).save(folder / name)
    images = [{"id": i, "file_name": name, **fields} for i, name in enumerate(names, 1)]
    categories = [{"id": 1, "name": "ill"}, {"id": 2, "name": "healthy"}]
    text = json.dumps({"images": images, "annotations": annotations, "categories": categories})
    (folder / "labels.json").write_text(text)
    return folder


def box(*corners: float, image: int = 1, category: int = 1, **more: object) -> dict:
    return {"image_id": image, "category_id": category, "bbox": list(corners), **more}


def test_boxes_that_cannot_be_cut_are_listed_and_the_others_cut(tmp_path):
    rows = [
        *(box(10, 10, 20, 15), box(-10, 50, 20, 20), box(200, 10, 5, 5), box(5, 5, 0, 9), box(30, 30, 3, 20)),
        *(box(40, 5, 20, 20, iscrowd=1), box(1, 2, 30, 30, category=9)),
    ]
    done = ingest(coco_folder(tmp_path / "in", rows), tmp_path / "out", crops="boxes", crop_margin=0)
    assert {key: (e.height, e.width, e.dtype) for key, e in done.images.entries.items()} == {
        "a_b0001": (15, 20, "uint16"),
        "a_b0002": (10, 10, "uint16"),
    }
    with (done.out / "images/rejects.csv").open() as stream:
        reasons = [line.split(",", 1)[1].strip().strip('"') for line in stream][1:]
    assert sorted(reason.split(": ", 2)[-1] for reason in reasons) == [
        "a crop of 3 x 20 px, smaller than 8 px",
        "box 4 (ill) covers several objects, so it has no crop",
        "box outside the image (80 x 60 px), x 200 to 205, y 10 to 15",
        "degenerate box, x 5 to 5, y 5 to 14",
        "the category 9 is none of the file's categories",
    ]


def test_without_boxes_there_are_no_crops(tmp_path):
    for name, rows in (("none", []), ("outside", [box(200, 10, 5, 5)])):
        with pytest.raises(UserError, match=r"--crops boxes: .*: no box to cut out; give boxes, or set it to none"):
            ingest(coco_folder(tmp_path / name, rows), tmp_path / f"out-{name}", crops="boxes")


def test_keys_of_crops_ascend_whatever_the_names(tmp_path):
    names = ("a.png", "a-1.png", "a_b0001.png", "a_b.png")
    rows = [box(5 * i, 5, 20, 20, image=image) for image in (1, 2, 3, 4) for i in range(3)]
    done = ingest(coco_folder(tmp_path / "in", rows, names), tmp_path / "out", crops="boxes", crop_margin=0)
    assert len(done.images) == 12 and list(done.images.entries) == sorted(done.images.entries)
    whole = np.asarray(Image.open(tmp_path / "in/a-1.png"))
    assert np.array_equal(done.images.read(done.sources()["a-1.png#box2"])[..., 0], whole[5:25, 5:25])


def test_classes_of_a_coco_file_without_boxes(tmp_path):
    rows = [{"image_id": 1, "category_id": 1}, {"image_id": 2, "category_id": 2}, {"image_id": 2, "category_id": 1}]
    done = ingest(coco_folder(tmp_path / "in", rows, ("a.png", "b.png", "c.png")), tmp_path / "out")
    assert done.labels.classes() == {"a": "ill"} and done.labels.annotations() == {}
    assert "several classes (healthy, ill) in labels.json; none is used" in done.rejects["b.png"]
    assert done.result.metrics["labelled"] == 1 and done.result.metrics["boxes"] == 0


def test_a_table_of_classes(tmp_path):
    folder = tmp_path / "in"
    some(real("malaria/test/positive"), folder, *(p.name for p in sorted(real("malaria/test/positive").iterdir())[:3]))
    names = sorted(path.name for path in folder.iterdir())
    (folder / "classes.csv").write_text(f"file,class\n{names[0]},ill\n{names[1]},healthy\nlost.png,ill\n")
    done = ingest(folder, tmp_path / "out")
    assert {done.images.entries[key].source: name for key, name in done.labels.classes().items()} == {
        names[0]: "ill",
        names[1]: "healthy",
    }
    assert done.rejects == {
        "classes.csv": "label: line 4: the image 'lost.png' is missing",
        names[2]: "label: no class in classes.csv",
    }
    assert done.result.metrics["rejects"] == 0 and "classes in classes.csv (2 images)" in done.result.remark


def test_one_class_only(tmp_path):
    """It is ingested as it is; what trains a classifier says that two are needed."""
    some(real("malaria/test/positive"), tmp_path / "in/train/positive", "*_10[0-9].png")
    done = ingest(tmp_path / "in", tmp_path / "out")
    assert set(done.labels.classes().values()) == {"positive"}


def test_reports_count_the_images_with_labels_of_any_kind(crops, tmp_path):
    assert image_count(crops.out / "labels") == len(crops.images)
    boxes = ingest(coco_folder(tmp_path / "in", [box(1, 2, 30, 30)], ("a.png", "b.png")), tmp_path / "out")
    assert not len(LabelReader(boxes.out / "labels")) and image_count(boxes.out / "labels") == 2
    assert image_count(boxes.out / "images") == 2 and image_count(boxes.out / "no_labels") == 0
    (tmp_path / "mixed").mkdir()
    Image.fromarray(picture()).save(tmp_path / "mixed/a.png")
    Image.fromarray(np.eye(60, 80, dtype=np.uint8)).save(tmp_path / "mixed/a_mask.png")
    Image.fromarray(picture()).save(tmp_path / "mixed/b.png")
    (tmp_path / "mixed/classes.csv").write_text("file,class\na.png,x\nb.png,y\n")
    mixed = ingest(tmp_path / "mixed", tmp_path / "out-mixed")
    assert len(mixed.labels) == 1 and image_count(mixed.out / "labels") == 2
