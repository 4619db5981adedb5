"""Tables of image classes: any usual wording, encoding and path is read; what does not fit is listed."""

from pathlib import Path, PurePosixPath

import pytest
from image_files import random
from PIL import Image

from shared.artifacts.keys import key_of
from shared.readers.classes.class_table import ClassRow, read_class_table
from shared.readers.layouts import Layout, recognise
from shared.system.errors import ImageError

NAMES = ("plate1/a.png", "plate1/b.png", "plate2/a.png", "c d.tif")
CLASSES = {"plate1/a.png": "ill", "plate1/b.png": "healthy", "plate2/a.png": "healthy", "c d.tif": "ill"}


def source(root: Path, names: tuple[str, ...] = NAMES, **tables: str | bytes) -> Path:
    """A folder of small images, and tables: `classes` becomes `classes.csv`."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random(9, 9)).save(root / name)
    for name, text in tables.items():
        path = root / (name.replace("__", "/") + ("" if "." in name else ".csv"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def classes(layout: Layout) -> dict[str, str]:
    return {str(image.relative): image.class_name for image in layout.images if image.class_name is not None}


def reasons(layout: Layout) -> list[str]:
    return [f"{file}: {reason.removeprefix('label: ')}" for file, reason in layout.problems]


def table(header: str, separator: str = ",") -> str:
    rows = [separator.join([name, text]) for name, text in CLASSES.items()]
    return "\n".join([header.replace(",", separator), *rows]) + "\n"


@pytest.mark.parametrize(
    "content",
    [
        table("file,class").encode(),
        table("Image Name,Label").encode("utf-8-sig"),
        table("filename;diagnosis", ";").encode("utf-16"),
        table("path,category", "\t").encode(),
        table("file,class").replace("\n", "\r\n").encode(),
        b"\n" + table("image_path,ground truth").encode(),
        table("file,class").replace("/", "\\").encode(),
        table("file,class").replace(".png", "").replace(".tif", "").encode(),
        table("image_id,class").replace("plate1/", "/data/plate1/").replace("plate2/", "D:\\plate2/").encode(),
        table("file,class").replace("file,class\n", "").encode(),
        b'class,x,file\nill,1,plate1/a.png\nhealthy,2,"plate1/b.png"\nhealthy,,plate2/a.png\nill,,c d.tif\n',
        b"key,class\nplate1__a,ill\nplate1__b,healthy\nplate2__a,healthy\nKEY,ill\n",
    ],
    ids=[
        "plain",
        "bom",
        "utf16",
        "tabs",
        "crlf",
        "blank line",
        "backslash",
        "stems",
        "absolute",
        "bare",
        "order",
        "key",
    ],
)
def test_a_table_beside_the_images(tmp_path, content):
    content = content.replace(b"KEY", key_of(PurePosixPath("c d.tif")).encode())
    layout = recognise(source(tmp_path, classes=content))
    assert not reasons(layout) and classes(layout) == CLASSES
    assert "classes in classes.csv (4 images)" in layout.description and layout.ignored == {}


def test_letters_beyond_ascii(tmp_path):
    names = ("größe.png", "b.png")
    layout = recognise(
        source(tmp_path, names, labels="Datei,file,class\n1,größe.png,gesund\n2,b.png,geschädigt\n".encode("cp1252"))
    )
    assert classes(layout) == {"größe.png": "gesund", "b.png": "geschädigt"}


def test_what_does_not_fit_is_listed(tmp_path):
    text = (
        "file,class\nplate1/a.png,ill\nnowhere.png,ill\na.png,ill\nplate1/b.png,\n,ill\n"
        "plate2/a.png,ill\nplate2/a.png,healthy\nplate1/a.png,ill\n"
    )
    layout = recognise(source(tmp_path, classes=text))
    assert classes(layout) == {"plate1/a.png": "ill"}
    assert reasons(layout) == [
        "c d.tif: no class in classes.csv",
        "classes.csv: line 3: the image 'nowhere.png' is missing",
        "classes.csv: line 4: the image 'a.png' is ambiguous: several files have its name",
        "classes.csv: line 5: no class of 'plate1/b.png'",
        "classes.csv: line 6: the image '' is not named",
        "plate1/b.png: no class in classes.csv",
        "plate2/a.png: several classes (healthy, ill) in classes.csv; none is used",
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("file,area\nplate1/a.png,3\n", "no column class among file, area; rename the header"),
        ("well,class,x\nA1,ill,1\n", "no column image among well, class, x"),
        ("", "an empty table"),
        ('file,class\n"plate1/a.png,ill\n' + "x" * 200_000, "not a table"),
    ],
)
def test_a_table_that_is_none_is_listed_by_its_name_alone(tmp_path, content, reason):
    layout = recognise(source(tmp_path, classes=content, metadata=content, measurements=content))
    (problem,) = reasons(layout)
    assert problem.startswith(f"classes.csv: {reason}") and classes(layout) == {}
    assert layout.ignored == {"csv": 2}


def test_a_table_can_name_splits_and_groups(tmp_path):
    text = "image,label,split,patient\nplate1/a.png,ill,train,p1\nplate1/b.png,ill,Validation,p2\n"
    text += "plate2/a.png,ill,often,\n"
    layout = recognise(source(tmp_path, classes=text))
    found = {str(image.relative): (image.split, image.group) for image in layout.images}
    assert found["plate1/a.png"] == ("train", "p1") and found["plate1/b.png"] == ("val", "p2")
    assert found["plate2/a.png"] == ("train", "plate2")
    assert "classes.csv: line 4: the split 'often' is none of train, val and test" in reasons(layout)


def test_a_table_of_each_split(tmp_path):
    layout = recognise(
        source(
            tmp_path,
            train="image,label\nplate1/a.png,ill\nplate1/b.png,healthy\n",
            **{"test.tsv": "image\tlabel\nplate2/a.png\till\n"},
            validation="image,label\nc d.tif,healthy\n",
        )
    )
    splits = {str(image.relative): image.split for image in layout.images}
    assert splits == {"plate1/a.png": "train", "plate1/b.png": "train", "plate2/a.png": "test", "c d.tif": "val"}
    assert len(classes(layout)) == 4 and not reasons(layout)


def test_a_table_and_class_folders(tmp_path):
    names = ("train/ill/a.png", "train/healthy/b.png", "test/ill/c.png")
    layout = recognise(source(tmp_path, names, classes="file,class\na.png,healthy\n"))
    assert classes(layout) == {"train/ill/a.png": "healthy", "train/healthy/b.png": "healthy", "test/ill/c.png": "ill"}
    assert reasons(layout) == ["train/ill/a.png: its folder says ill, classes.csv says healthy, which is used"]
    assert {image.group for image in layout.images} == {""}


def test_a_table_concerns_the_images_below_its_folder(tmp_path):
    layout = recognise(source(tmp_path, plate1__labels="file,class\na.png,ill\nb.png,healthy\n"))
    assert classes(layout) == {"plate1/a.png": "ill", "plate1/b.png": "healthy"} and not reasons(layout)


def test_rows_hold_their_line_and_cells(tmp_path):
    (tmp_path / "t.csv").write_text('file,class\n\n"a, b.png", x \nc.png\n')
    assert read_class_table(tmp_path / "t.csv").rows == [ClassRow(3, "a, b.png", "x"), ClassRow(4, "c.png", "")]
    with pytest.raises(ImageError, match="empty table"):
        (tmp_path / "t.csv").write_text("\n\n")
        read_class_table(tmp_path / "t.csv")
