"""Annotations in COCO JSON: valid ones become annotations and label images, others are dropped with a reason."""

import json
from pathlib import Path

import numpy as np
import pytest
from image_files import two_objects
from pycocotools import mask as coco_mask

from shared.artifacts.coco import annotation_dataset
from shared.readers.coco import coco_annotations, rasterise, read_coco


def coco_file(path: Path, *rows: dict) -> Path:
    rows = tuple({"id": i, "image_id": 7, "category_id": 2, **row} for i, row in enumerate(rows))
    images = [{"id": 7, "file_name": "a.png", "height": 30, "width": 40}]
    categories = [{"id": 2, "name": "cell"}, {"id": 1, "name": "debris"}]
    path.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    return path


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
    (image,) = read_coco(path) or []
    found, dropped = coco_annotations(image, (30, 40))
    assert not dropped and [item.category for item in found] == ["cell", "debris"]
    assert found[1].bbox == (3, 2, 9, 8) and found[1].area == 72
    drawn = rasterise(found, (30, 40))
    assert drawn is not None
    assert np.array_equal(drawn[0], np.where(labels == 3, 1, labels // 9 * 2)) and drawn[1] is None


def test_uncompressed_run_lengths(tmp_path):
    mask = two_objects() == 9
    (image,) = read_coco(coco_file(tmp_path / "c.json", {"segmentation": as_counts(mask)})) or []
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
    (image,) = read_coco(coco_file(tmp_path / "c.json", row, good)) or []
    found, dropped = coco_annotations(image, (30, 40))
    assert [item.bbox for item in found] == [(1, 2, 3, 4)] and len(dropped) == 1


def test_overlapping_objects_do_not_become_a_label_image(tmp_path):
    big, small, half = np.zeros((3, 30, 40), np.uint8)
    big[:20, :20], small[5:8, 5:8], half[:20, 15:30] = 1, 1, 1
    for others, drawn in (([small], True), ([half], False), ([small, big], False)):
        rows = [{"segmentation": as_rle(mask)} for mask in (big, *others)]
        (image,) = read_coco(coco_file(tmp_path / "c.json", *rows)) or []
        found, _ = coco_annotations(image, (30, 40))
        assert (rasterise(found, (30, 40)) is not None) == drawn
    boxes, _ = coco_annotations(read_coco(coco_file(tmp_path / "c.json", {"bbox": [1, 2, 3, 4]}))[0], (30, 40))
    assert rasterise(boxes, (30, 40)) is None  # a box has no outline


def test_crowds_have_confidence_0(tmp_path):
    labels = two_objects()
    rows = [{"segmentation": as_rle(labels == 3)}, {"segmentation": as_rle(labels == 9), "iscrowd": 1}]
    found, _ = coco_annotations(read_coco(coco_file(tmp_path / "c.json", *rows))[0], (30, 40))
    drawn, conf = rasterise(found, (30, 40))
    assert np.array_equal(drawn, labels == 3) and np.array_equal(conf == 0, labels == 9)


def test_pycocotools_reads_what_is_written(tmp_path):
    from pycocotools.coco import COCO

    found, _ = coco_annotations(
        read_coco(coco_file(tmp_path / "c.json", {"segmentation": as_rle(two_objects() == 9)}, {"bbox": [1, 2, 3, 4]}))[
            0
        ],
        (30, 40),
    )
    (tmp_path / "out.json").write_text(json.dumps(annotation_dataset([("a", (30, 40), found), ("b", (30, 40), [])])))
    coco = COCO(tmp_path / "out.json")
    assert [coco.imgs[i]["file_name"] for i in coco.getImgIds()] == ["a", "b"]
    assert np.array_equal(coco.annToMask(coco.anns[1]), two_objects() == 9)
    assert coco.anns[2]["bbox"] == [1, 2, 3, 4] and coco.cats[1]["name"] == "cell"
