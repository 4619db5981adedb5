"""Boxes in Pascal VOC XML: valid ones are kept, others are dropped with a reason."""

import pytest

from shared.readers.labels.voc import voc_annotations
from shared.system.errors import ImageError


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
    read = voc_annotations(tmp_path / "a.xml", (30, 40))
    found, dropped = read.found, read.dropped
    assert [item.bbox for item in found] == [(2, 3, 8, 10), (0, 0, 5, 5), (30, 20, 10, 10)]
    assert [text.split(" (")[0] for text in dropped] == ["object 4", "object 5", "object 6", "object 7"]
    assert "degenerate" in dropped[0]


def test_boxes_for_another_size_are_refused(tmp_path):
    (tmp_path / "a.xml").write_text(voc((2, 3, 10, 13), size=(60, 80)))
    with pytest.raises(ImageError, match="80 x 60"):
        voc_annotations(tmp_path / "a.xml", (30, 40))
