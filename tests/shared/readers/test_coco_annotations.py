"""Annotations in COCO JSON: valid ones become annotations and label images, others are dropped with a reason."""

import json
from pathlib import Path

import numpy as np
import pytest
from image_files import two_objects
from pycocotools import mask as coco_mask

from shared.artifacts.coco import AnnotationWriter
from shared.readers.labels.coco import CocoImage, coco_annotations, rasterise, read_coco


def coco_file(path: Path, *rows: dict) -> Path:
    rows = tuple({"id": i, "image_id": 7, "category_id": 2, **row} for i, row in enumerate(rows))
    images = [{"id": 7, "file_name": "a.png", "height": 30, "width": 40}]
    categories = [{"id": 2, "name": "cell"}, {"id": 1, "name": "debris"}]
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    return path


def only_image(path: Path) -> CocoImage:
    file = read_coco(path)
    assert file is not None and not file.problems
    (image,) = file.images
    return image


def as_rle(mask: np.ndarray) -> dict:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def as_counts(mask: np.ndarray) -> dict:
    flat = np.concatenate([[0], mask.ravel(order="F"), [2]])
    runs = np.diff(np.flatnonzero(np.diff(flat.astype(int)) != 0), prepend=0)
    counts = runs.tolist() if not mask.ravel(order="F")[0] else [0, *runs.tolist()]
    return {"size": list(mask.shape), "counts": counts}


def test_polygons_and_run_lengths_become_instances(tmp_path):
    labels = two_objects()
    square = [20, 8, 30, 8, 30, 20, 20, 20]
    path = coco_file(
        tmp_path / "c.json", {"segmentation": [square]}, {"segmentation": as_rle(labels == 9), "category_id": 1}
    )
    image = only_image(path)
    found, dropped = coco_annotations(image, (30, 40))
    assert not dropped and [item.category for item in found] == ["cell", "debris"]
    assert found[1].bbox == (3, 2, 9, 8) and found[1].area == 72
    drawn = rasterise(found, (30, 40))
    assert drawn is not None
    assert np.array_equal(drawn[0], np.where(labels == 3, 1, labels // 9 * 2)) and drawn[1] is None


def test_uncompressed_run_lengths(tmp_path):
    mask = two_objects() == 9
    image = only_image(coco_file(tmp_path / "c.json", {"segmentation": as_counts(mask)}))
    (item,), dropped = coco_annotations(image, (30, 40))
    assert not dropped and np.array_equal(coco_mask.decode(item.rle), mask)


@pytest.mark.parametrize(
    "row",
    [
        {"segmentation": [[1, 1, 2]]},
        {"segmentation": [[1, 1, 2, 2, 3, 3, 4]]},
        {"segmentation": [[0, 0, 1e9, 0, 1e9, 1e9]]},
        {"segmentation": [["a"] * 6]},
        {"segmentation": {"size": [31, 40], "counts": [1240]}},
        {"segmentation": {"size": [30, 40], "counts": [100, 5]}},
        {"segmentation": {"size": [30, 40], "counts": "zzzz"}},
        {"segmentation": {"size": [30, 40], "counts": "~~"}},
        {"segmentation": {"size": [30, 40], "counts": "oooooooooooooooooooo1"}},
        {"segmentation": {"size": [30, 40], "counts": [1200]}},
        {"segmentation": {}},
        {"bbox": [5, 5, 0, 3]},
        {"bbox": [50, 50, 3, 3]},
        {"bbox": None},
        {"bbox": [1, 2]},
    ],
)
def test_invalid_annotations_are_dropped_with_a_reason(tmp_path, row):
    good = {"bbox": [1, 2, 3, 4]}
    image = only_image(coco_file(tmp_path / "c.json", row, good))
    found, dropped = coco_annotations(image, (30, 40))
    assert [item.bbox for item in found] == [(1, 2, 3, 4)] and len(dropped) == 1


def test_overlapping_objects_do_not_become_a_label_image(tmp_path):
    big, small, half = np.zeros((3, 30, 40), np.uint8)
    big[:20, :20], small[5:8, 5:8], half[:20, 15:30] = 1, 1, 1
    for others, drawn in (([small], True), ([half], False), ([small, big], False)):
        rows = [{"segmentation": as_rle(mask)} for mask in (big, *others)]
        image = only_image(coco_file(tmp_path / "c.json", *rows))
        found, _ = coco_annotations(image, (30, 40))
        assert (rasterise(found, (30, 40)) is not None) == drawn
    boxes, _ = coco_annotations(only_image(coco_file(tmp_path / "c.json", {"bbox": [1, 2, 3, 4]})), (30, 40))
    assert rasterise(boxes, (30, 40)) is None  # a box has no outline


def test_crowds_have_confidence_0(tmp_path):
    labels = two_objects()
    rows = [{"segmentation": as_rle(labels == 3)}, {"segmentation": as_rle(labels == 9), "iscrowd": 1}]
    found, _ = coco_annotations(only_image(coco_file(tmp_path / "c.json", *rows)), (30, 40))
    drawn, conf = rasterise(found, (30, 40))
    assert np.array_equal(drawn, labels == 3) and np.array_equal(conf == 0, labels == 9)


def test_pycocotools_reads_what_is_written(tmp_path):
    from pycocotools.coco import COCO

    path = coco_file(tmp_path / "c.json", {"segmentation": as_rle(two_objects() == 9)}, {"bbox": [1, 2, 3, 4]})
    found, _ = coco_annotations(only_image(path), (30, 40))
    writer = AnnotationWriter(tmp_path)
    for key, objects in (("a", found), ("b", [])):
        writer.add(key, (30, 40), objects)
    writer.write(tmp_path / "out.json")
    coco = COCO(tmp_path / "out.json")
    assert [coco.imgs[i]["file_name"] for i in coco.getImgIds()] == ["a", "b"]
    assert np.array_equal(coco.annToMask(coco.anns[1]), two_objects() == 9)
    assert coco.anns[2]["bbox"] == [1, 2, 3, 4] and coco.cats[1]["name"] == "cell"


def write_coco(path: Path, images: list[dict], annotations: list[dict], categories: list[dict] | None = None) -> Path:
    named = [{"id": 1, "name": "ill"}, {"id": 2, "name": "healthy"}] if categories is None else categories
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": named}))
    return path


def images_named(*names: str) -> list[dict]:
    return [{"id": number, "file_name": name} for number, name in enumerate(names, 1)]


def test_annotations_without_box_and_outline_are_classes_of_images(tmp_path):
    rows = [
        {"id": 1, "image_id": 1, "category_id": 1},
        {"id": 2, "image_id": 2, "category_id": 2, "bbox": [], "segmentation": []},
        {"id": 3, "image_id": 3, "category_id": 9},
    ]
    file = read_coco(write_coco(tmp_path / "c.json", images_named("a.png", "b.png", "c.png"), rows))
    assert [(image.classes, image.rows, image.has_objects) for image in file.images] == [
        (["ill"], [], False), (["healthy"], [], False), ([], [], False),
    ]  # fmt: skip
    assert file.problems == ["the class of c.png: the category 9 is none of the file's categories"]


def test_an_image_can_state_its_class_itself(tmp_path):
    images = images_named("a.png", "b.png", "c.png", "d.png")
    fields = [{"category_id": 2}, {"category": "ill"}, {"tags": ["ill"]}, {}]
    images = [image | field for image, field in zip(images, fields, strict=True)]
    file = read_coco(write_coco(tmp_path / "c.json", images, []))
    assert [image.classes for image in file.images] == [["healthy"], ["ill"], ["ill"], []]
    assert not any(image.has_objects for image in file.images)
    boxes = read_coco(
        write_coco(tmp_path / "c.json", images, [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}])
    )
    assert all(image.has_objects for image in boxes.images) and boxes.images[0].classes == ["healthy"]


def test_without_annotations_the_images_hold_no_objects(tmp_path):
    file = read_coco(write_coco(tmp_path / "c.json", images_named("a.png"), []))
    assert file.images[0].has_objects and coco_annotations(file.images[0], (30, 40)) == ([], [])


def test_a_box_of_an_unknown_category_is_listed(tmp_path):
    rows = [{"id": 5, "image_id": 1, "category_id": number, "bbox": [1, 2, 3, 4]} for number in (1, 9)]
    file = read_coco(write_coco(tmp_path / "c.json", images_named("a.png"), rows))
    found, dropped = coco_annotations(file.images[0], (30, 40))
    assert [item.category for item in found] == ["ill"]
    assert dropped == ["annotation 5: the category 9 is none of the file's categories"]
    nameless = read_coco(write_coco(tmp_path / "c.json", images_named("a.png"), rows, []))
    assert [item.category for item in coco_annotations(nameless.images[0], (30, 40))[0]] == ["1", "9"]


def test_ids_that_clash_are_listed_and_nothing_is_guessed(tmp_path):
    box = {"bbox": [1, 2, 3, 4], "category_id": 1}
    images = [*images_named("a.png", "b.png"), {"id": 2, "file_name": "c.png"}, {"id": 1, "file_name": "a.png"}]
    rows = [{"id": 1, "image_id": 1} | box, {"id": 1, "image_id": 1} | box, {"id": 1, "image_id": 2} | box]
    rows += [{"image_id": 77} | box, {"image_id": 77} | box, {"image_id": 1, "bbox": [5, 5, 2, 2], "category_id": 3}]
    categories = [{"id": 1, "name": "ill"}, {"id": 3, "name": "x"}, {"id": 3, "name": "y"}]
    file = read_coco(write_coco(tmp_path / "c.json", images, rows, categories))
    assert [image.file_name for image in file.images] == ["a.png"]
    assert file.problems == [
        "the category id 3 stands for x, y; its annotations are dropped",
        "the image id 2 stands for b.png, c.png; their 1 annotations cannot be told apart",
        "annotations of the image id 77, which no image has: 2",
    ]
    found, dropped = coco_annotations(file.images[0], (30, 40))
    assert len(found) == 2, "annotations are numbered anew, so equal ids lose nothing"
    assert dropped == ["annotation 3: the category 3 is none of the file's categories"]


def test_boxes_partly_outside_are_clipped_and_others_listed(tmp_path):
    boxes = [[-5, -5, 10, 10], [38, 28, 10, 10], [40, 5, 3, 3], [-9, 2, 5, 5], [5, 5, 0, 3], [5, 5, 3, -2]]
    boxes += [[float("nan"), 1, 2, 2]]
    found, dropped = coco_annotations(
        only_image(coco_file(tmp_path / "c.json", *({"bbox": b} for b in boxes))), (30, 40)
    )
    assert [item.bbox for item in found] == [(0, 0, 5, 5), (38, 28, 2, 2)] and [item.area for item in found] == [25, 4]
    assert [reason.split(": ")[1].split(",")[0] for reason in dropped] == [
        *["box outside the image (40 x 30 px)"] * 2, *["degenerate box"] * 2, "the box has not four numbers",
    ]  # fmt: skip
