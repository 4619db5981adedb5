"""Label images and annotations, in whatever form people have them."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from bad_images import encoded
from PIL import Image
from pycocotools import mask as coco_mask
from real_labels import wheel_nuclei

from shared.artifacts.coco import annotation_dataset
from shared.readers.coco import coco_annotations, rasterise, read_coco
from shared.readers.decode.image_file import Limits
from shared.readers.label_images import merge_object_masks, read_label_image, renumber
from shared.readers.voc import voc_annotations
from shared.system.errors import ImageError

LIMITS = Limits()


def two_objects(dtype: type = np.uint8, first: int = 3, second: int = 9) -> np.ndarray:
    labels = np.zeros((30, 40), dtype)
    labels[2:10, 3:12] = second
    labels[8:20, 20:30] = first
    return labels


def read(path: Path, size: tuple[int, int] = (30, 40)) -> tuple[np.ndarray, str, list[str]]:
    return read_label_image(path, size, LIMITS)


@pytest.mark.parametrize(
    ("dtype", "top"), [(np.uint8, 9), (np.uint16, 60_000), (np.uint32, 2**31), (np.int32, 70_000), (np.float32, 900)]
)
def test_instances_are_numbered_anew_in_order_of_their_values(tmp_path, dtype, top):
    labels = two_objects(dtype, 3, top)
    tifffile.imwrite(tmp_path / "m.tif", labels)
    found, kind, _ = read(tmp_path / "m.tif")
    assert kind == "instances" and found.dtype == np.uint8
    assert np.array_equal(found, np.where(labels == 3, 1, np.where(labels == top, 2, 0)))


def test_real_instances_are_the_same_regions(tmp_path):
    _, truth = wheel_nuclei()
    shuffled = np.random.default_rng(0).permutation(60_000)[: truth.max() + 1].astype(np.uint16) + 1
    shuffled[0] = 0
    found, names = renumber(shuffled[truth])
    assert len(names) == len(np.unique(truth)) - 1
    pairs = np.unique(np.stack([found.ravel(), truth.ravel()]), axis=1)
    assert pairs.shape[1] == len(names) + 1  # one to one
    wide, _ = renumber(shuffled[truth].astype(np.uint32) * 1000)
    assert np.array_equal(wide, found)


@pytest.mark.parametrize(("value", "kind"), [(255, "foreground"), (1, "foreground")])
def test_one_value_in_several_pieces_is_a_foreground_mask(tmp_path, value, kind):
    Image.fromarray((two_objects() > 0).astype(np.uint8) * value).save(tmp_path / "m.png")
    found, said, _ = read(tmp_path / "m.png")
    assert said == kind and np.array_equal(found, two_objects() > 0)


def test_one_value_in_one_piece_is_one_instance(tmp_path):
    Image.fromarray((two_objects() == 3).astype(np.uint8)).save(tmp_path / "m.png")
    assert read(tmp_path / "m.png")[1] == "instances"


def test_an_empty_label_image_says_that_nothing_is_there(tmp_path):
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(tmp_path / "m.png")
    found, kind, _ = read(tmp_path / "m.png")
    assert not found.any() and kind == "instances"


def test_classes_in_many_pieces_are_remarked(tmp_path):
    labels = np.zeros((30, 40), np.uint8)
    labels[::4, ::4], labels[2::4, 2::4] = 1, 2
    Image.fromarray(labels).save(tmp_path / "m.png")
    assert "classes" in read(tmp_path / "m.png")[2][0]


def test_colours_and_palettes_are_instances(tmp_path):
    rgb = np.zeros((30, 40, 3), np.uint8)
    rgb[two_objects() == 3], rgb[two_objects() == 9] = (0, 200, 30), (200, 0, 30)
    Image.fromarray(rgb).save(tmp_path / "rgb.png")
    found, kind, _ = read(tmp_path / "rgb.png")
    assert kind == "instances" and np.array_equal(found, np.where(two_objects() == 3, 1, two_objects() // 9 * 2))
    palette = Image.fromarray(two_objects(), "P")
    palette.putpalette([0, 0, 0] + [value for i in range(1, 256) for value in (i, 255 - i, 7)])
    palette.save(tmp_path / "p.png")
    assert len(np.unique(read(tmp_path / "p.png")[0])) == 3


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (np.full((20, 40), 1, np.uint8), "40 x 20 px"),
        (two_objects(np.int16, -4), "negative"),
        (two_objects(np.float32) + np.float32(0.5), "whole numbers"),
        (two_objects(np.float32) * np.float32(np.nan), "whole numbers"),
        (np.stack([two_objects()] * 3), "3 frames"),
    ],
)
def test_label_images_that_do_not_fit(tmp_path, labels, reason):
    tifffile.imwrite(tmp_path / "m.tif", labels, photometric="minisblack")
    with pytest.raises(ImageError, match=reason):
        read(tmp_path / "m.tif")


def test_a_jpeg_is_no_label_image(tmp_path):
    (tmp_path / "m.jpg").write_bytes(encoded("JPEG"))
    with pytest.raises(ImageError, match="JPEG"):
        read(tmp_path / "m.jpg")


def test_one_mask_per_object(tmp_path):
    paths = []
    for name, value in (("a", 3), ("b", 9), ("c", 77)):
        Image.fromarray((two_objects() == value).astype(np.uint8) * 255).save(tmp_path / f"{name}.png")
        paths.append(tmp_path / f"{name}.png")
    (tmp_path / "d.png").write_bytes(encoded("PNG")[:50])
    labels, dropped = merge_object_masks((*paths, tmp_path / "d.png"), (30, 40), LIMITS)
    assert np.array_equal(labels, np.where(two_objects() == 3, 1, two_objects() // 9 * 2))
    assert [text.split(":")[0] for text in dropped] == ["c.png", "d.png"]


# --- Pascal VOC ---------------------------------------------------------------------------------------------------


def voc(*boxes: tuple[object, ...], size: tuple[int, int] = (30, 40)) -> str:
    sides = ("xmin", "ymin", "xmax", "ymax")
    objects = "".join(
        "<object><name>RBC</name><bndbox>"
        + "".join(f"<{side}>{value}</{side}>" for side, value in zip(sides, box, strict=False))
        + "</bndbox></object>"
        for box in boxes
    )
    head = f"<size><width>{size[1]}</width><height>{size[0]}</height></size>" if size else ""
    return f"<annotation>{head}{objects}</annotation>"


def test_boxes_of_pascal_voc(tmp_path):
    text = voc((2, 3, 10, 13), (-5, -5, 5, 5), (30, 20, 99, 99), (7, 7, 7, 9), (9, 9, 8, 12), (1, 2, 3), ("x", 1, 2, 3))
    (tmp_path / "a.xml").write_text(text)
    found, dropped = voc_annotations(tmp_path / "a.xml", (30, 40))
    assert [item.bbox for item in found] == [(2, 3, 8, 10), (0, 0, 5, 5), (30, 20, 10, 10)]
    assert [text.split(" (")[0] for text in dropped] == ["object 4", "object 5", "object 6", "object 7"]
    assert "degenerate" in dropped[0]


def test_boxes_for_another_size_are_refused(tmp_path):
    (tmp_path / "a.xml").write_text(voc((2, 3, 10, 13), size=(60, 80)))
    with pytest.raises(ImageError, match="80 x 60"):
        voc_annotations(tmp_path / "a.xml", (30, 40))


# --- COCO ---------------------------------------------------------------------------------------------------------


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
def test_annotations_that_are_no_objects_are_dropped_with_a_reason(tmp_path, row):
    good = {"bbox": [1, 2, 3, 4]}
    (image,) = read_coco(coco_file(tmp_path / "c.json", row, good)) or []
    found, dropped = coco_annotations(image, (30, 40))
    assert [item.bbox for item in found] == [(1, 2, 3, 4)] and len(dropped) == 1


def test_overlap_that_would_be_lost_is_not_drawn(tmp_path):
    big, small, half = np.zeros((3, 30, 40), np.uint8)
    big[:20, :20], small[5:8, 5:8], half[:20, 15:30] = 1, 1, 1
    for others, drawn in (([small], True), ([half], False), ([small, big], False)):
        rows = [{"segmentation": as_rle(mask)} for mask in (big, *others)]
        (image,) = read_coco(coco_file(tmp_path / "c.json", *rows)) or []
        found, _ = coco_annotations(image, (30, 40))
        assert (rasterise(found, (30, 40)) is not None) == drawn
    boxes, _ = coco_annotations(read_coco(coco_file(tmp_path / "c.json", {"bbox": [1, 2, 3, 4]}))[0], (30, 40))
    assert rasterise(boxes, (30, 40)) is None  # a box has no outline


def test_crowds_are_ignored_where_they_lie(tmp_path):
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
