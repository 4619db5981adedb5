"""Annotations in COCO JSON: valid ones become annotations and label images, others are dropped with a reason."""

import json
from pathlib import Path

import numpy as np
import pytest
from image_files import two_objects
from pycocotools import mask as coco_mask

from shared.artifacts.annotation import Annotation
from shared.artifacts.coco import AnnotationWriter
from shared.readers.labels import outlines
from shared.readers.labels.annotations import Annotations
from shared.readers.labels.coco import CocoImage, read_coco
from shared.system.errors import ImageError


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


def coco_annotations(image: CocoImage, size: tuple[int, int]) -> tuple[list[Annotation], list[str]]:
    """What can be used, and the reasons for the rest."""
    read = outlines.coco_annotations(image, size)
    return read.found, read.dropped


def rasterise(found: list[Annotation], size: tuple[int, int], **settings) -> outlines.Drawing:
    return outlines.rasterise(Annotations(found), size, **settings)


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
    assert np.array_equal(drawn.labels, np.where(labels == 3, 1, labels // 9 * 2)) and drawn.conf is None
    assert not drawn.remarks


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


def test_objects_that_hide_others_in_part_are_counted_and_half_of_them_are_too_many(tmp_path):
    big, small, half, far = np.zeros((4, 30, 40), np.uint8)
    big[:20, :20], small[5:8, 5:8], half[:20, 15:30], far[22:28, 2:9] = 1, 1, 1, 1
    for others, hidden, is_drawn in (
        ([small], 0, True), ([half, far], 1, True), ([half], 1, False), ([small, half, far, small[::-1]], 2, True)
    ):  # fmt: skip
        rows = [{"segmentation": as_rle(mask)} for mask in (big, *others)]
        found, _ = coco_annotations(only_image(coco_file(tmp_path / "c.json", *rows)), (30, 40))
        drawing = rasterise(found, (30, 40))
        assert (drawing.labels is not None) == is_drawn
        assert len(drawing.remarks) == bool(hidden) and all(f"{hidden} of {len(rows)}" in r for r in drawing.remarks)
        if drawing.labels is not None:
            assert np.array_equal(drawing.labels == 2, others[0]), "smaller objects are on top"
            assert drawing.labels.max() == len(rows)


def test_boxes_among_outlines_are_left_out_of_the_label_image_and_not_scored(tmp_path):
    labels = two_objects()
    rows = [{"bbox": [30, 20, 5, 6]}, {"segmentation": as_rle(labels == 9)}]
    found, _ = coco_annotations(only_image(coco_file(tmp_path / "c.json", *rows)), (30, 40))
    drawing = rasterise(found, (30, 40))
    inside = np.zeros((30, 40), bool)
    inside[20:26, 30:35] = True
    assert np.array_equal(drawing.labels, labels == 9) and np.array_equal(drawing.conf == 0, inside)
    assert "1 of 2 objects have a box" in drawing.remarks[0]
    boxes, _ = coco_annotations(only_image(coco_file(tmp_path / "c.json", {"bbox": [1, 2, 3, 4]})), (30, 40))
    assert rasterise(boxes, (30, 40)).labels is None  # a box has no outline


def test_an_image_without_objects_has_an_empty_label_image_where_others_have_outlines(tmp_path):
    rows = [{"image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]}]
    file = read_coco(write_coco(tmp_path / "c.json", images_named("a.png", "b.png"), rows))
    assert [image.has_outlines for image in file.images] == [True, True]
    assert not rasterise([], (30, 40), has_outlines=True).labels.any()
    assert rasterise([], (30, 40)).labels is None


def test_crowds_have_confidence_0(tmp_path):
    labels = two_objects()
    rows = [{"segmentation": as_rle(labels == 3)}, {"segmentation": as_rle(labels == 9), "iscrowd": 1}]
    found, _ = coco_annotations(only_image(coco_file(tmp_path / "c.json", *rows)), (30, 40))
    drawing = rasterise(found, (30, 40))
    assert np.array_equal(drawing.labels, labels == 3) and np.array_equal(drawing.conf == 0, labels == 9)


def test_where_every_outline_is_a_crowd_each_is_an_object(tmp_path):
    labels = two_objects()
    rows = [{"segmentation": as_rle(labels == value), "iscrowd": 1} for value in (3, 9)]
    found, _ = coco_annotations(only_image(coco_file(tmp_path / "c.json", *rows)), (30, 40))
    drawing = rasterise(found, (30, 40))
    assert np.array_equal(drawing.labels, np.where(labels == 3, 1, labels // 9 * 2)) and drawing.conf is None
    assert "iscrowd" in drawing.remarks[0]


@pytest.mark.parametrize(
    "form",
    [
        lambda square, mask: [square],
        lambda square, mask: square,
        lambda square, mask: [list(pair) for pair in zip(square[::2], square[1::2], strict=True)],
        lambda square, mask: [[list(pair) for pair in zip(square[::2], square[1::2], strict=True)]],
        lambda square, mask: [[], square],
        lambda square, mask: [as_rle(mask)],
        lambda square, mask: [as_counts(mask), square],
    ],
)
def test_outlines_in_other_forms_are_read(tmp_path, form):
    mask = np.zeros((30, 40), np.uint8)
    mask[8:20, 20:30] = 1
    row = {"segmentation": form([20, 8, 30, 8, 30, 20, 20, 20], mask), "iscrowd": None}
    (item,), dropped = coco_annotations(only_image(coco_file(tmp_path / "c.json", row)), (30, 40))
    assert not dropped and np.array_equal(coco_mask.decode(item.rle), mask) and item.iscrowd == 0


def test_an_empty_outline_leaves_the_box(tmp_path):
    rows = [{"segmentation": outline, "bbox": [1, 2, 3, 4 + i]} for i, outline in enumerate(([[]], [], None, {}))]
    found, dropped = coco_annotations(only_image(coco_file(tmp_path / "c.json", *rows)), (30, 40))
    assert [item.bbox[3] for item in found] == [4, 5, 6, 7] and not dropped


def test_annotations_that_repeat_others_are_dropped_and_counted(tmp_path):
    rows = [{"segmentation": as_rle(two_objects() == value)} for value in (3, 9)] + [{"bbox": [1, 2, 3, 4]}]
    found, dropped = coco_annotations(only_image(coco_file(tmp_path / "c.json", *rows, *rows)), (30, 40))
    assert len(found) == 3 and dropped == ["3 annotations repeat others, with the same category and outline or box"]


def test_a_declared_size_that_is_not_the_images_is_refused(tmp_path):
    image = only_image(coco_file(tmp_path / "c.json", {"bbox": [1, 2, 3, 4]}))
    assert len(coco_annotations(image, (30, 40))[0]) == 1
    with pytest.raises(ImageError, match="of an image of 40 x 30 px; this one is 30 x 40"):
        coco_annotations(image, (40, 30))


def test_an_outline_that_would_take_gigabytes_is_dropped(tmp_path):
    zigzag = [value for i in range(60_000) for value in (0 if i % 2 else 79, i % 30)]
    image = only_image(coco_file(tmp_path / "c.json", {"segmentation": [zigzag]}, {"bbox": [1, 2, 3, 4]}))
    found, dropped = coco_annotations(image, (30, 40))
    assert len(found) == 1 and "px long" in dropped[0]


def whole_file(count: int = 1) -> dict:
    images = [{"id": i, "file_name": f"{i}.png"} for i in range(1, count + 1)]
    rows = [{"id": i, "image_id": i, "category_id": 1, "bbox": [1, 2, 3, 4]} for i in range(1, count + 1)]
    return {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "cell"}]}


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data | {"annotations": {str(row["id"]): row for row in data["annotations"]}},  # LIVECell
        lambda data: data | {"categories": None},
        lambda data: data | {"images": [image | {"id": str(image["id"])} for image in data["images"]]},
        lambda data: data | {"images": [image | {"id": float(image["id"])} for image in data["images"]]},
        lambda data: data | {"categories": [{"id": "1", "name": "cell"}, {"id": 2}, "x"]},
        lambda data: data | {"images": [image | {"width": None, "height": "x"} for image in data["images"]]},
    ],
)
def test_files_as_programs_write_them_are_read(tmp_path, change):
    (tmp_path / "c.json").write_text(json.dumps(change(whole_file(2))))
    file = read_coco(tmp_path / "c.json")
    assert not file.problems and [len(image.rows) for image in file.images] == [1, 1]
    assert len(coco_annotations(file.images[0], (30, 40))[0]) == 1


@pytest.mark.parametrize(
    ("change", "problem", "rows"),
    [
        (lambda d: d["images"][1].pop("file_name"), "image 2 has no file_name or no id", [1]),
        (lambda d: d["images"][1].pop("id"), "image 2 has no file_name or no id", [1]),
        (lambda d: d["annotations"][0].pop("image_id"), "annotations without an image id: 1", [0, 1]),
        (lambda d: d["annotations"].append(7), "annotations without an image id: 1", [1, 1]),
        (lambda d: d["annotations"][0].update(image_id=77), "image id 77, which no image has: 1", [0, 1]),
        (lambda d: d["images"][1].update(id=1), "the image id 1 is not unique", []),
    ],
)
def test_rows_that_cannot_be_used_are_listed_and_the_others_kept(tmp_path, change, problem, rows):
    data = whole_file(2)
    change(data)
    (tmp_path / "c.json").write_text(json.dumps(data))
    file = read_coco(tmp_path / "c.json")
    assert any(problem in text for text in file.problems) and [len(image.rows) for image in file.images] == rows


def test_damaged_files_are_listed_and_json_of_another_kind_is_not(tmp_path):
    path, text = tmp_path / "c.json", json.dumps(whole_file())
    for content in (
        text[:-40],
        text.replace("[{", "[" * 5000 + "{", 1),
        text.replace('"images": [', '"images": 1e999, "x": ['),
    ):
        path.write_text(content)
        file = read_coco(path)
        assert (file is None) == ("1e999" in content)
        assert file is None or (not file.images and "not readable COCO" in file.problems[0])
    path.write_bytes(text.replace("cell", "Zelle ä").encode("latin-1"))
    file = read_coco(path)
    assert file.images[0].categories == {"1": "Zelle ä"} and "Latin-1" in file.problems[0]
    captions = whole_file() | {"annotations": [{"id": 1, "image_id": 1, "caption": "six cells"}]}
    for other in ("{", '{"a": 1}', "[]", json.dumps(captions)):
        path.write_text(other)
        assert read_coco(path) is None


@pytest.mark.parametrize("value", ["Infinity", "-Infinity", "NaN", "1e999", "1" + "0" * 400])
@pytest.mark.parametrize("field", ["bbox", "segmentation", "iscrowd"])
def test_numbers_without_bounds_are_dropped(tmp_path, value, field):
    entry = {"bbox": f"[1, 2, {value}, 4]", "segmentation": f"[[1, 1, 9, 1, {value}, 9]]", "iscrowd": value}[field]
    data = json.dumps(whole_file(1)).replace('"bbox": [1, 2, 3, 4]', f'"bbox": [1, 2, 3, 4], "{field}": {entry}')
    (tmp_path / "c.json").write_text(data)
    file = read_coco(tmp_path / "c.json")
    if file is not None and file.images:
        found, dropped = coco_annotations(file.images[0], (30, 40))
        assert len(found) + len(dropped) == 1


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
    other = box | {"bbox": [2, 2, 3, 4]}
    rows = [{"id": 1, "image_id": 1} | box, {"id": 1, "image_id": 1} | other, {"id": 1, "image_id": 2} | box]
    rows += [{"image_id": 77} | box, {"image_id": 77} | box, {"image_id": 1, "bbox": [5, 5, 2, 2], "category_id": 3}]
    categories = [{"id": 1, "name": "ill"}, {"id": 3, "name": "x"}, {"id": 3, "name": "y"}]
    file = read_coco(write_coco(tmp_path / "c.json", images, rows, categories))
    assert [image.file_name for image in file.images] == ["a.png"]
    assert file.problems == [
        "the category id 3 stands for x, y; its annotations are dropped",
        "the image id 2 is not unique, it stands for b.png, c.png; their 1 annotations cannot be told apart",
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
