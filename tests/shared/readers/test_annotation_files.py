"""Annotations belong to the image that they name, and what is lost leaves no false truth."""

import json
from pathlib import Path

import pytest
from ingest_run import ingest
from label_files import IMAGE, remarks, save


def square(x: int, y: int, side: int = 20) -> list[int]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def annotation(**fields: object) -> dict[str, object]:
    given = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "segmentation": [square(10, 10)]}
    return given | {"iscrowd": 0} | fields


def coco(path: Path, *annotations: dict[str, object], name: str = "a.png", **image: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": 1, "file_name": name, **image}]
    categories = [{"id": 1, "name": "cell"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def voc(path: Path, *boxes: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        f"<object><name>cell</name><bndbox><xmin>{low}</xmin><ymin>{low}</ymin><xmax>{high}</xmax><ymax>{high}</ymax>"
        "</bndbox></object>"
        for low, high in boxes
    ]
    path.write_text(f"<annotation>{''.join(rows)}</annotation>")


class TestAnnotations:
    @pytest.mark.parametrize(
        "fields",
        [
            {"category_id": 0},
            {"category_id": None},
            {"segmentation": {"size": [95, 96], "counts": [0, 96 * 95]}},
            {"segmentation": [[1, 2, 3, 4]], "bbox": None},
        ],
    )
    def test_lost_objects_leave_no_empty_truth(self, tmp_path: Path, fields: dict[str, object]) -> None:
        save(tmp_path / "in/a.png", IMAGE)
        coco(tmp_path / "in/a.json", annotation(**fields))
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        assert not outcome.labels.contents() and "annotation 1" in outcome.rejects["a.png"]

    def test_the_place_of_a_lost_object_is_unknown(self, tmp_path: Path) -> None:
        save(tmp_path / "in/a.png", IMAGE)
        coco(tmp_path / "in/a.json", annotation(category_id=7), annotation(id=2, segmentation=[square(50, 50)]))
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        mask, conf = outcome.labels.mask("a"), outcome.labels.conf("a")
        assert mask[60, 60] == 1 and mask.max() == 1 and "annotation 1" in outcome.rejects["a.png"]
        assert (conf[10:30, 10:30] == 0).all() and (conf == 0).sum() == 400

    def test_boxes_of_voc_that_are_lost_leave_no_empty_truth(self, tmp_path: Path) -> None:
        save(tmp_path / "in/a.png", IMAGE)
        voc(tmp_path / "in/a.xml", (30, 30))
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        assert not outcome.labels.contents() and "object 1" in outcome.rejects["a.png"]
        voc(tmp_path / "none/a.xml")
        save(tmp_path / "none/a.png", IMAGE)
        assert ingest(tmp_path / "none", tmp_path / "out2").labels.annotations() == {"a": []}, (
            "an image without objects"
        )

    def test_ids_with_leading_zeros(self, tmp_path: Path) -> None:
        save(tmp_path / "in/a.png", IMAGE)
        coco(tmp_path / "in/a.json", annotation(image_id="000001"))
        assert ingest(tmp_path / "in", tmp_path / "out").labels.mask("a").max() == 1

    def test_folders_in_a_name_are_not_ignored(self, tmp_path: Path) -> None:
        for name in ("val/000.png", "plate2/a.png"):
            save(tmp_path / "in" / name, IMAGE)
        coco(tmp_path / "in/one.json", annotation(), name="train/000.png")
        coco(tmp_path / "in/two.json", annotation(), name="plate1/a.png")
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        assert not outcome.labels.contents()
        of_another = "(val/000.png is of another folder or split)"
        assert outcome.rejects["one.json"].endswith(f"'train/000.png' is missing {of_another}")
        assert "'plate1/a.png' is missing" in outcome.rejects["two.json"]

    def test_paths_of_another_computer_are_found_by_their_name(self, tmp_path: Path) -> None:
        save(tmp_path / "in/plate2/a.png", IMAGE)
        coco(tmp_path / "in/one.json", annotation(), name="C:\\exports\\plate1\\a.png")
        assert len(ingest(tmp_path / "in", tmp_path / "out").labels) == 1

    def test_the_file_of_the_same_plate_comes_first(self, tmp_path: Path) -> None:
        save(tmp_path / "in/plate2/a.png", IMAGE)
        coco(tmp_path / "in/plate1/ann.json", annotation())
        coco(tmp_path / "in/plate2/ann.json", annotation(segmentation=[square(50, 50)]))
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        (key,) = outcome.labels.keys()
        assert outcome.labels.mask(key)[60, 60] == 1 and "plate1/ann.json" in outcome.rejects
        save(tmp_path / "well/plate2/A01/f1.png", IMAGE)
        coco(tmp_path / "well/x.json", annotation(), name="plate1/A01/f1.png")
        outcome = ingest(tmp_path / "well", tmp_path / "out2")
        assert not outcome.labels.contents() and "is missing" in outcome.rejects["x.json"]
        save(tmp_path / "voc/plateB/images/a.png", IMAGE)
        voc(tmp_path / "voc/plateA/ann/a.xml", (10, 30))
        outcome = ingest(tmp_path / "voc", tmp_path / "out3")
        assert not outcome.labels.contents() and "whose image is missing" in outcome.rejects["plateA/ann/a.xml"]

    def test_a_file_that_only_lists_an_image_does_not_empty_it(self, tmp_path: Path) -> None:
        for name in "ab":
            save(tmp_path / f"in/{name}.png", IMAGE)
        images = [{"id": number, "file_name": f"{name}.png"} for number, name in ((1, "a"), (2, "b"))]
        for split, number in (("train", 1), ("val", 2)):
            rows = [annotation(image_id=number, segmentation=[square(50, 50)])]
            data = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "cell"}]}
            (tmp_path / f"in/{split}.json").write_text(json.dumps(data))
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        assert [outcome.labels.mask(key)[60, 60] for key in "ab"] == [1, 1] and not outcome.rejects

    def test_annotations_of_splits_by_their_names(self, tmp_path: Path) -> None:
        save(tmp_path / "in/val2017/000.png", IMAGE)
        coco(tmp_path / "in/annotations/instances_train2017.json", annotation(), name="000.png")
        coco(
            tmp_path / "in/annotations/instances_val2017.json",
            annotation(segmentation=[square(50, 50)]),
            name="000.png",
        )
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        (key,) = outcome.labels.keys()
        assert outcome.labels.mask(key)[60, 60] == 1 and outcome.labels.mask(key)[20, 20] == 0
        assert "is missing" in outcome.rejects["annotations/instances_train2017.json"]

    def test_voc_of_several_splits_with_the_same_names(self, tmp_path: Path) -> None:
        for split, box in (("train", (10, 30)), ("val", (50, 60))):
            save(tmp_path / f"in/{split}/images/a.png", IMAGE)
            voc(tmp_path / f"in/{split}/annotations/a.xml", box)
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        boxes = {outcome.images.entries[key].split: found for key, found in outcome.labels.boxes().items()}
        assert boxes == {"train": [(10, 10, 20, 20)], "val": [(50, 50, 10, 10)]} and not outcome.rejects

    def test_a_second_voc_file_of_an_image_is_listed(self, tmp_path: Path) -> None:
        save(tmp_path / "in/train/images/a.png", IMAGE)
        voc(tmp_path / "in/train/annotations/a.xml", (10, 30))
        voc(tmp_path / "in/train/annotations_old/a.xml", (40, 60))
        voc(tmp_path / "in/val/annotations/a.xml", (50, 60))
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        assert list(outcome.labels.boxes().values()) == [[(10, 10, 20, 20)]]
        assert "has another one" in outcome.rejects["train/annotations_old/a.xml"]
        assert "whose image is missing" in outcome.rejects["val/annotations/a.xml"]

    def test_the_same_boxes_in_voc_and_coco_are_counted_once(self, tmp_path: Path) -> None:
        save(tmp_path / "in/a.png", IMAGE)
        coco(tmp_path / "in/a.json", annotation())
        voc(tmp_path / "in/a.xml", (10, 30), (50, 70))
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        assert sorted(outcome.labels.boxes()["a"]) == [(10, 10, 20, 20), (50, 50, 20, 20)]
        assert "boxes that repeat those of another annotation file: 1" in remarks(outcome)

    def test_points_are_no_classes(self, tmp_path: Path) -> None:
        save(tmp_path / "in/a.png", IMAGE)
        points = {"id": 1, "image_id": 1, "category_id": 1, "keypoints": [9, 9, 2]}
        coco(tmp_path / "in/a.json", points)
        outcome = ingest(tmp_path / "in", tmp_path / "out")
        assert not outcome.labels.contents() and "points (keypoints)" in outcome.rejects["a.json"]

    def test_a_file_cut_off_within_its_images(self, tmp_path: Path) -> None:
        save(tmp_path / "in/a.png", IMAGE)
        coco(tmp_path / "in/a.json", annotation())
        path = tmp_path / "in/a.json"
        path.write_bytes(path.read_bytes()[:35])
        assert "not readable COCO" in ingest(tmp_path / "in", tmp_path / "out").rejects["a.json"]

    def test_sizes_as_text_and_boxes_as_shares(self, tmp_path: Path) -> None:
        save(tmp_path / "in/a.png", IMAGE)
        coco(tmp_path / "in/a.json", annotation(), height="192", width="192")
        assert "of an image of 192 x 192 px" in ingest(tmp_path / "in", tmp_path / "out").rejects["a.png"]
        coco(tmp_path / "in/a.json", annotation(segmentation=[], bbox=[0.1, 0.1, 0.2, 0.2]))
        assert "shares of the image's size" in ingest(tmp_path / "in", tmp_path / "out2").rejects["a.png"]
