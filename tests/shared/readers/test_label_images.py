"""Label images in their various forms become instances or a foreground mask."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from bad_images import encoded
from image_files import two_objects
from PIL import Image
from real_labels import wheel_nuclei

from shared.readers.decode.image_file import Limits
from shared.readers.label_images import merge_object_masks, read_label_image, renumber
from shared.system.errors import ImageError

LIMITS = Limits()


def read(path: Path, size: tuple[int, int] = (30, 40)) -> tuple[np.ndarray, str, list[str]]:
    return read_label_image(path, size, LIMITS)


@pytest.mark.parametrize(
    ("dtype", "top"), [(np.uint8, 9), (np.uint16, 60_000), (np.uint32, 2**31), (np.int32, 70_000), (np.float32, 900)]
)
def test_instances_are_renumbered_in_order_of_their_values(tmp_path, dtype, top):
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
def test_one_value_in_several_components_is_a_foreground_mask(tmp_path, value, kind):
    Image.fromarray((two_objects() > 0).astype(np.uint8) * value).save(tmp_path / "m.png")
    found, read_kind, _ = read(tmp_path / "m.png")
    assert read_kind == kind and np.array_equal(found, two_objects() > 0)


def test_one_value_in_one_component_is_one_instance(tmp_path):
    Image.fromarray((two_objects() == 3).astype(np.uint8)).save(tmp_path / "m.png")
    assert read(tmp_path / "m.png")[1] == "instances"


def test_an_empty_label_image_has_no_instances(tmp_path):
    Image.fromarray(np.zeros((30, 40), np.uint8)).save(tmp_path / "m.png")
    found, kind, _ = read(tmp_path / "m.png")
    assert not found.any() and kind == "instances"


def test_values_in_many_components_are_remarked(tmp_path):
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
def test_unusable_label_images_are_refused(tmp_path, labels, reason):
    tifffile.imwrite(tmp_path / "m.tif", labels, photometric="minisblack")
    with pytest.raises(ImageError, match=reason):
        read(tmp_path / "m.tif")


def test_a_jpeg_is_refused(tmp_path):
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
