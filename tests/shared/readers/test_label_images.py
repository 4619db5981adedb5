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
from shared.readers.labels.label_images import merge_object_masks, read_label_image
from shared.readers.labels.numbering import renumber
from shared.system.errors import ImageError

LIMITS = Limits()


def read(path: Path, size: tuple[int, int] = (30, 40)) -> tuple[np.ndarray, str, list[str]]:
    found = read_label_image(path, size, LIMITS)
    return found.labels, found.kind, found.remarks


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
    labels, dropped, _ = merge_object_masks((*paths, tmp_path / "d.png"), (30, 40), LIMITS)
    assert np.array_equal(labels, np.where(two_objects() == 3, 1, two_objects() // 9 * 2))
    assert [text.split(":")[0] for text in dropped] == ["c.png", "d.png"]


def discs(height: int = 96, width: int = 128) -> np.ndarray:
    """Six discs, numbered 1 to 6."""
    y, x = np.mgrid[:height, :width]
    labels = np.zeros((height, width), np.uint8)
    for number, (cy, cx) in enumerate(((20, 20), (20, 64), (20, 108), (76, 20), (76, 64), (76, 108)), 1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 < 100] = number
    return labels


DISCS = discs()
COLOURS = np.random.default_rng(1).integers(1, 255, (256, 3)).astype(np.uint8)


def palette(path: Path, table: np.ndarray, bits: int = 8, **options) -> None:
    picture = Image.fromarray(DISCS, "P")
    picture.putpalette(table[: 2**bits].ravel().tolist())
    picture.save(path, bits=bits, **options)


@pytest.mark.parametrize("change", ["none", "white first", "black second", "two alike", "all alike"])
@pytest.mark.parametrize("form", ["png", "png of 4 bits", "png with transparency", "bmp", "tif", "compressed tif"])
def test_palettes_are_read_by_index_whatever_their_colours(tmp_path, change, form):
    table = COLOURS.copy()
    table[0] = 255 if change == "white first" else 0
    if change == "black second":
        table[2] = 0
    if change == "two alike":
        table[4] = table[3]
    if change == "all alike":
        table[1:] = (10, 20, 30)
    path = tmp_path / f"m.{form.split()[-1] if 'tif' in form else form.split()[0]}"
    if "tif" in form:
        compression = "zlib" if "compressed" in form else None
        colormap = table.T.astype(np.uint16) * 257
        tifffile.imwrite(path, DISCS, photometric="palette", colormap=colormap, compression=compression)
    else:
        options = {"transparency": 0} if "transparency" in form else {}
        palette(path, table, 4 if "4 bits" in form else 8, **options)
    found, kind, remarks = read(path, DISCS.shape)
    assert kind == "instances" and np.array_equal(found, DISCS) and not remarks


@pytest.mark.parametrize(
    ("values", "kind", "remark"),
    [
        ((DISCS > 0).astype(np.uint8) + 1, "foreground", "no pixel is 0; the value 1, 85 % of the image"),
        (2 - (DISCS > 0).astype(np.uint8), "foreground", "no pixel is 0; the value 2, 85 % of the image"),
        (DISCS + 1, "instances", "no pixel is 0; the value 1, 85 %"),
        (DISCS.astype(np.uint16) + 7000, "instances", "no pixel is 0; the value 7000, 85 %"),
        (np.vstack([[[255, 255, 255]], COLOURS[1:7]]).astype(np.uint8)[DISCS], "instances", "(255, 255, 255), 85 %"),
    ],
)
def test_a_background_that_is_not_0_is_found_on_the_border(tmp_path, values, kind, remark):
    photometric = "rgb" if values.ndim == 3 else "minisblack"
    tifffile.imwrite(tmp_path / "m.tif", values, photometric=photometric)
    found, read_kind, remarks = read(tmp_path / "m.tif", DISCS.shape)
    assert read_kind == kind and np.array_equal(found > 0, DISCS > 0) and remark in remarks[0]
    assert len(np.unique(found)) == (7 if kind == "instances" else 2)


def test_a_background_that_cannot_be_told_is_refused(tmp_path):
    """Half and half; one value everywhere; and one value over most of the image, but on two sides only."""
    half, most = np.full((96, 128), 1, np.uint8), DISCS + 1
    half[:, 64:], most[:, :8], most[:, -8:] = 2, 8, 9
    for number, (values, reason) in enumerate(
        ((half, "which of the value 1, the value 2"), (DISCS * 0 + 3, "every pixel is the value 3"), (most, "which of"))
    ):
        tifffile.imwrite(tmp_path / f"{number}.tif", values)
        with pytest.raises(ImageError, match=reason):
            read(tmp_path / f"{number}.tif", DISCS.shape)


def test_cells_that_fill_the_image_are_objects(tmp_path):
    """Confluent cells leave no background."""
    tiles = np.add.outer(4 * (np.arange(96) // 24), np.arange(128) // 32).astype(np.uint8) + 1
    tifffile.imwrite(tmp_path / "m.tif", tiles)
    found, kind, remarks = read(tmp_path / "m.tif", tiles.shape)
    assert kind == "instances" and np.array_equal(found, tiles) and "16 objects" in remarks[0]


@pytest.mark.parametrize("way", ["bilinear", "bicubic", "JPEG", "JPEG of low quality"])
def test_smeared_masks_are_foreground(tmp_path, way):
    mask = Image.fromarray((DISCS > 0).astype(np.uint8) * 255)
    if "JPEG" in way:
        mask.save(tmp_path / "m.jpg", quality=30 if "low" in way else 80)
        mask = Image.open(tmp_path / "m.jpg")
    else:
        method = Image.Resampling.BILINEAR if way == "bilinear" else Image.Resampling.BICUBIC
        mask = mask.resize((64, 48), method).resize((128, 96), method)
    mask.save(tmp_path / "m.png")
    found, kind, remarks = read(tmp_path / "m.png", DISCS.shape)
    assert kind == "foreground" and (found != (DISCS > 0)).mean() < 0.03 and "no numbers of objects" in remarks[0]


def test_smeared_instances_are_refused_and_real_ones_are_not(tmp_path):
    _, truth = wheel_nuclei()
    labels = Image.fromarray(truth.astype(np.uint8))
    labels.resize((256, 256), Image.Resampling.BILINEAR).save(tmp_path / "smeared.png")
    with pytest.raises(ImageError, match="no numbers of objects"):
        read(tmp_path / "smeared.png", (256, 256))
    labels.resize((256, 256), Image.Resampling.NEAREST).save(tmp_path / "m.png")
    assert read(tmp_path / "m.png", (256, 256))[1:] == ("instances", [])


def test_values_in_several_pieces_each_are_classes(tmp_path):
    Image.fromarray((DISCS > 0).astype(np.uint8) + (DISCS > 3)).save(tmp_path / "m.png")
    found, kind, remarks = read(tmp_path / "m.png", DISCS.shape)
    assert kind == "foreground" and np.array_equal(found, DISCS > 0)
    assert remarks == ["m.png: 2 values in 6 pieces are taken for classes, and read as foreground"]
    split = DISCS.copy()
    split[18:22, :40] = 0  # one of six objects is cut in two
    Image.fromarray(split).save(tmp_path / "m.png")
    assert read(tmp_path / "m.png", DISCS.shape)[1:] == ("instances", [])


def test_cells_in_the_alpha_channel_and_transparent_background(tmp_path):
    rgba = np.zeros((*DISCS.shape, 4), np.uint8)
    rgba[..., 3] = DISCS
    Image.fromarray(rgba).save(tmp_path / "a.png")
    found, kind, remarks = read(tmp_path / "a.png", DISCS.shape)
    assert kind == "instances" and np.array_equal(found, DISCS) and "alpha" in remarks[0]
    rgba[..., :3], rgba[..., 3] = COLOURS[DISCS], 255 * (DISCS > 0)
    for name in ("b.png", "b.tif"):
        Image.fromarray(rgba).save(tmp_path / name)
        found, kind, remarks = read(tmp_path / name, DISCS.shape)
        assert kind == "instances" and np.array_equal(found > 0, DISCS > 0) and found.max() == 6
        assert "transparent" in remarks[0]


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_one_bit_is_read_as_it_is_shown(tmp_path, photometric):
    shown = DISCS > 0
    stored = ~shown if photometric == "miniswhite" else shown
    tifffile.imwrite(tmp_path / "m.tif", stored, photometric=photometric)
    found, kind, _ = read(tmp_path / "m.tif", DISCS.shape)
    assert kind == "foreground" and np.array_equal(found > 0, shown)


def test_remarks_on_masks_of_single_objects_are_kept(tmp_path):
    paths = []
    for number in (1, 2):
        Image.fromarray((number == DISCS).astype(np.uint8) + 1).save(tmp_path / f"{number}.png")
        paths.append(tmp_path / f"{number}.png")
    labels, dropped, remarks = merge_object_masks(tuple(paths), DISCS.shape, LIMITS)
    assert np.array_equal(labels, DISCS * (DISCS < 3)) and not dropped
    assert [remark.split(":")[0] for remark in remarks] == ["1.png", "2.png"]
