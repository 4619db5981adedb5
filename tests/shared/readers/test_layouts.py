"""Layouts of folders: which files are images and labels, and which belong together."""

import json
import re
from pathlib import Path, PurePosixPath

import pytest
from bad_images import encoded

from shared.readers.layouts import Layout, recognise
from shared.system.errors import UserError

PNG = encoded("PNG")
VOC = "<annotation><object><name>RBC</name></object></annotation>"


def folder_of(root: Path, *names: str) -> Path:
    """Files by their relative names; each is a PNG, whatever its suffix."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(VOC.encode() if name.endswith(".xml") else PNG)
    return root


def masks(layout: Layout, root: Path) -> dict[str, str]:
    return {
        str(item.relative): item.mask_path.relative_to(root).as_posix()
        for item in layout.images
        if item.mask_path is not None
    }


def images(layout: Layout) -> set[str]:
    return {str(item.relative) for item in layout.images}


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("a_img.png", "a_masks.png"),
        ("a.tif", "a_masks.png"),
        ("a.tif", "a_mask.tif"),
        ("a.jpg", "a_label.bmp"),
        ("a.png", "a_labels.tiff"),
        ("a.png", "a_cp_masks.png"),
        ("sub/a.PNG", "sub/a_MASKS.TIF"),
        ("images/a.png", "labels/a_label.tiff"),
        ("images/a.png", "labels/a.tiff"),
        ("images/a.png", "masks/a.png"),
        ("Images/a.png", "Masks/a.png"),
        ("train/images/a.png", "train/masks/a.png"),
        ("images/train/a.png", "labels/train/a.png"),
        ("plate/a.png", "plate/masks/a.png"),
        ("a.png", "masks/a.png"),
        ("images/a_img.png", "masks/a_mask.png"),
    ],
)
def test_label_images_are_paired_with_their_image(tmp_path, image, mask):
    folder_of(tmp_path, image, mask, str(Path(image).with_name("other.png")))
    layout = recognise(tmp_path)
    assert masks(layout, tmp_path) == {image: mask}
    assert images(layout) == {image, str(PurePosixPath(image).with_name("other.png"))}
    assert not layout.problems and "(1 image)" in layout.description


def test_a_label_image_without_image_is_listed(tmp_path):
    layout = recognise(folder_of(tmp_path, "a.png", "b_masks.png"))
    assert images(layout) == {"a.png"} and layout.problems[0][0] == "b_masks.png"


def test_of_two_label_images_one_is_used_and_the_other_listed(tmp_path):
    layout = recognise(folder_of(tmp_path, "a.png", "a_label.png", "a_masks.png"))
    assert masks(layout, tmp_path) == {"a.png": "a_masks.png"}
    assert [name for name, _ in layout.problems] == ["a_label.png"]


def test_folders_with_one_mask_per_object(tmp_path):
    names = [f"{i}/{kind}" for i in ("id1", "id2") for kind in (f"images/{i}.png", "masks/x.png", "masks/y.png")]
    layout = recognise(folder_of(tmp_path, *names, "id3/images/id3.png", "id3/masks/only.png"))
    assert {str(i.relative): [p.name for p in i.object_masks] for i in layout.images} == {
        "id1/images/id1.png": ["x.png", "y.png"],
        "id2/images/id2.png": ["x.png", "y.png"],
        "id3/images/id3.png": ["only.png"],
    }
    assert "one mask per object (3 images)" in layout.description
    assert [item.group for item in layout.images] == ["id1", "id2", "id3"]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("01/t000.tif", "01_GT/SEG/man_seg000.tif"),  # Cell Tracking Challenge
        ("movies/02/t0012.tif", "movies/02_ST/SEG/man_seg0012.tif"),
        ("s [x=0,y=0].tif", "s [x=0,y=0]-labelled.tif"),  # QuPath
        ("train_images/a.tif", "train_masks/a.tif"),
        ("images_train/a.tif", "masks_train/a.tif"),
        ("train/a.tif", "train_labels/a_mask.tif"),
        ("set-imgs/a_img.tif", "set-gt/a.tif"),
        ("JPEGImages/a.jpg", "SegmentationObject/a.png"),  # Pascal VOC
        ("a.tif", "mask_a.tif"),
        ("a.tif", "Labels-a.png"),
        ("a.tif", "a_seg.tif"),
        ("a_img.png", "a_GT.png"),
        ("a.png", "a_Object Identities.png"),  # ilastik
        ("seg_3.png", "seg_3_gt.png"),
        ("a.ome.tif", "a_masks.tif"),
        ("a.ome.tif", "a_masks.ome.tif"),
        ("a.tif", "masks/a.ome.tiff"),
        ("two\nlines.png", "two\nlines_masks.png"),
        ("Zu\u0308rich.png", "Z\u00fcrich_masks.png"),  # decomposed, as macOS stores it, and composed
        ("Zu\u0308rich/images/a.png", "Z\u00fcrich/masks/a.png"),
    ],
)
def test_names_that_are_labels_where_their_image_is_there(tmp_path, image, mask):
    folder_of(tmp_path, image, mask, "other.png")
    layout = recognise(tmp_path)
    assert masks(layout, tmp_path) == {image: mask}
    assert images(layout) == {image, "other.png"} and not layout.problems and not layout.remarks


def test_files_of_an_image_that_are_no_label_images_are_left_out(tmp_path):
    files = ["a_img_flows.tif", "a_cp_outlines.png", "01_GT/TRA/man_track000.tif", "01_RES/mask000.tif"]
    layout = recognise(folder_of(tmp_path, "a_img.tif", "a_masks.tif", "a.png", "01/t000.tif", *files))
    assert images(layout) == {"a_img.tif", "a.png", "01/t000.tif"}
    assert {name for name, remark in layout.remarks if remark.startswith("left out")} == set(files)


def test_without_their_image_they_are_images_and_are_named(tmp_path):
    names = {"mask_1.png", "x_seg.png", "x_flows.png", "train_masks/a.png"}
    layout = recognise(folder_of(tmp_path, *names))
    assert images(layout) == names and not masks(layout, tmp_path)
    ((name, remark),) = layout.remarks
    assert name == "mask_1.png" and "read as an image, like 3 more files" in remark


def test_of_several_label_images_that_of_objects_is_used(tmp_path):
    folder_of(tmp_path, "JPEGImages/a.jpg", "SegmentationClass/a.png", "SegmentationObject/a.png")
    layout = recognise(tmp_path)
    assert masks(layout, tmp_path) == {"JPEGImages/a.jpg": "SegmentationObject/a.png"}
    assert [name for name, _ in layout.problems] == ["SegmentationClass/a.png"]


def test_of_images_of_one_name_the_one_with_the_suffix_gets_the_label_image(tmp_path):
    layout = recognise(folder_of(tmp_path, "a.png", "a.tif", "a_masks.tif"))
    assert masks(layout, tmp_path) == {"a.tif": "a_masks.tif"} and images(layout) == {"a.png", "a.tif"}
    assert layout.remarks == [("a_masks.tif", "the label image of a.tif, not of a.png, which has the same name")]


def test_several_masks_beside_one_image_pair_by_name_first(tmp_path):
    layout = recognise(folder_of(tmp_path, "images/a.png", "masks/a.png", "masks/b.png"))
    assert masks(layout, tmp_path) == {"images/a.png": "masks/a.png"}
    assert [name for name, _ in layout.problems] == ["masks/b.png"]


def test_folders_with_results_are_passed_over(tmp_path):
    names = ["a.png", "results/run.json", "results/infer/overlays/a.png", "kept/artifact.json", "kept/b.png", "c/d.png"]
    layout = recognise(folder_of(tmp_path, *names))
    assert images(layout) == {"a.png", "c/d.png"}
    assert [name for name, _ in layout.remarks] == ["kept", "results"]


def test_class_folders_with_splits(tmp_path):
    names = [f"{split}/{name}/a.png" for split in ("train", "valid", "test") for name in ("positive", "negative")]
    layout = recognise(folder_of(tmp_path, *names))
    assert {(i.split, i.class_name) for i in layout.images} == {
        (split, name) for split in ("train", "val", "test") for name in ("positive", "negative")
    }
    assert "class folders negative, positive" in layout.description and "train 2, val 2, test 2" in layout.description


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["train/drug A/1.png", "train/drug B/1.png", "test/drug A/1.png"], {"drug A", "drug B"}),
        (["positive/1.png", "negative/1.png"], {"positive", "negative"}),
        (["plate1/1.png", "plate2/1.png"], set()),
        (["train/plate1/1.png", "train/plate2/1.png", "test/plate3/1.png"], set()),  # plates differ between splits
        (["train/images/1.png", "train/masks/1.png", "test/images/1.png"], set()),
        (["train/only/1.png", "test/only/1.png"], set()),
        (["train/Infected/1.png", "test/Infected/1.png"], {"Infected"}),
        (["train/ill/1.png", "train/well/1.png", "test/ill/1.png"], {"ill", "well"}),  # a class that a split lacks
    ],
)
def test_which_folders_are_classes(tmp_path, names, classes):
    layout = recognise(folder_of(tmp_path, *names))
    assert {item.class_name for item in layout.images if item.class_name} == classes


@pytest.mark.parametrize("name", ["valid", "val", "validation", "Valid", "VALIDATION"])
def test_names_of_the_split_val(tmp_path, name):
    names = [f"{split}/{kind}/1.png" for split in ("train", name) for kind in ("ill", "well")]
    layout = recognise(folder_of(tmp_path, *names))
    found = {str(image.relative): (image.split, image.class_name) for image in layout.images}
    assert found[f"{name}/ill/1.png"] == ("val", "ill") and found["train/well/1.png"] == ("train", "well")


def test_splits_and_groups(tmp_path):
    layout = recognise(folder_of(tmp_path, "p1/w1/a.png", "VAL/p2/b.png", "testing/images/c.png", "d.png"))
    assert {str(i.relative): (i.split, i.group) for i in layout.images} == {
        "p1/w1/a.png": ("train", "p1/w1"),
        "VAL/p2/b.png": ("val", "p2"),
        "testing/images/c.png": ("test", ""),
        "d.png": ("train", ""),
    }


def test_a_pattern_finds_groups_in_names(tmp_path):
    """What its parentheses hold, or all that it matches; the folder where it finds nothing."""
    names = "train/pos/C1P2ThinF_a.png", "train/neg/C1P2ThinF_b.png", "train/neg/C9ThinF_a.png", "val/pos/w3/other.png"
    folder = folder_of(tmp_path, *names, "val/neg/x.png")
    layout = recognise(folder, re.compile(r"([^/]*)ThinF"))
    assert [i.group for i in layout.images] == ["C1P2", "C9", "C1P2", "", "w3"]
    assert "2 groups in the names of 3 of 5 images" in layout.description
    assert {i.group for i in recognise(folder, re.compile(r"C\d")).images} == {"C1", "C9", "", "w3"}
    assert {i.group for i in recognise(folder, re.compile(r"(C\d).*_(.)\.")).images} == {
        "C1_a",
        "C1_b",
        "C9_a",
        "",
        "w3",
    }


def test_folders_above_the_source_have_no_meaning(tmp_path):
    inner = folder_of(tmp_path / "test" / "labels", "a.png", "b.png")
    assert [(i.key, i.split, i.group) for i in recognise(inner).images] == [("a", "train", ""), ("b", "train", "")]


def coco(*names: str) -> str:
    return json.dumps(
        {
            "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
            "annotations": [{"image_id": 0, "category_id": 1, "bbox": [1, 1, 5, 5]}],
            "categories": [{"id": 1, "name": "cell"}],
        }
    )


def test_coco_in_the_same_folder_or_another(tmp_path):
    folder_of(tmp_path, "train/a.png", "train/b.png", "val/a.png", "val/c.png", "settings.png")
    (tmp_path / "train/_annotations.coco.json").write_text(coco("a.png", "gone.png"))
    (tmp_path / "val.json").write_text(coco("/data/elsewhere/c.png", "a.png"))
    (tmp_path / "settings.json").write_text('{"images": 3}')
    (tmp_path / "broken.json").write_text('{"images": [')
    layout = recognise(tmp_path)
    assert {str(i.relative) for i in layout.images if i.coco} == {"train/a.png", "val/a.png", "val/c.png"}
    assert layout.ignored == {"json": 2} and "COCO json (3 images)" in layout.description
    assert [reason for _, reason in layout.problems] == ["label: the image 'gone.png' is missing"]


def test_coco_whose_image_has_several_candidates(tmp_path):
    folder_of(tmp_path, "p1/a.png", "p2/a.png")
    (tmp_path / "annotations.json").write_text(coco("a.png"))
    assert [reason for _, reason in recognise(tmp_path).problems] == [
        "label: the image 'a.png' is ambiguous: several files have its name"
    ]


def test_pascal_voc_in_the_same_folder_or_another(tmp_path):
    folder_of(tmp_path, "a.png", "a.xml", "JPEGImages/b.jpg", "Annotations/b.xml", "Annotations/lost.xml")
    (tmp_path / "other.xml").write_text("<settings/>")
    layout = recognise(tmp_path)
    assert {str(i.relative): i.voc_path.name for i in layout.images if i.voc_path} == {
        "a.png": "a.xml",
        "JPEGImages/b.jpg": "b.xml",
    }
    assert [name for name, _ in layout.problems] == ["Annotations/lost.xml"] and layout.ignored == {"xml": 1}


def test_xml_with_entities_is_not_read(tmp_path):
    folder_of(tmp_path, "a.png")
    (tmp_path / "a.xml").write_text('<!DOCTYPE x [<!ENTITY a "aa">]><annotation>&a;</annotation>')
    layout = recognise(tmp_path)
    assert layout.images[0].voc_path is None and layout.problems[0][0] == "a.xml"


def test_other_files_are_counted_except_hidden_ones(tmp_path):
    folder_of(tmp_path, "a.png", ".hidden.png", ".cache/b.png", "__MACOSX/c.png", "notes.txt", "table.csv", "README")
    layout = recognise(tmp_path)
    assert images(layout) == {"a.png"} and layout.ignored == {"": 1, "csv": 1, "txt": 1}


def test_one_file_is_a_source(tmp_path):
    folder_of(tmp_path, "a_masks.png", "b.png")
    layout = recognise(tmp_path / "a_masks.png")
    assert images(layout) == {"a_masks.png"} and layout.description.startswith("one file")


def test_loops_of_links_end(tmp_path):
    folder_of(tmp_path, "a.png", "sub/b.png")
    (tmp_path / "sub/up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    layout = recognise(tmp_path)
    assert images(layout) >= {"a.png", "sub/b.png"} and not images(layout) - {"a.png", "sub/b.png", "self.png"}


def test_links_to_folders_and_files_elsewhere_are_followed(tmp_path):
    folder_of(tmp_path / "elsewhere", "b.png")
    folder_of(tmp_path / "here", "a.png")
    (tmp_path / "here/linked").symlink_to(tmp_path / "elsewhere")
    assert images(recognise(tmp_path / "here")) == {"a.png", "linked/b.png"}


@pytest.mark.parametrize("name", ["nowhere", "a.png/inside"])
def test_no_such_folder(tmp_path, name):
    folder_of(tmp_path, "a.png")
    with pytest.raises(UserError, match="no such file or folder"):
        recognise(tmp_path / name)


@pytest.mark.parametrize("name", [".zgroup", ".zarray", "zarr.json"])
def test_zarr_folders_are_named_for_what_they_are(tmp_path, name):
    (tmp_path / "plate/a.ome.zarr/0").mkdir(parents=True)
    (tmp_path / "plate/a.ome.zarr" / name).write_text("{}")
    (tmp_path / "plate/a.ome.zarr/0/0").write_bytes(b"chunk")
    (tmp_path / "plate/b.png").write_bytes(PNG)
    layout = recognise(tmp_path)
    assert [image.relative.name for image in layout.images] == ["b.png"]
    assert layout.unreadable == [("plate/a.ome.zarr", "a Zarr folder, which is not read; save its images as OME-TIFF")]
    with pytest.raises(UserError, match=r"a\.ome\.zarr: a Zarr folder"):
        recognise(tmp_path / "plate/a.ome.zarr")
