"""TIFF files that other libraries wrote are decoded pixel by pixel, as frames and channels."""

import numpy as np
import pytest
import tifffile
from image_files import RNG, random, read_all, written
from PIL import Image

from shared.readers.decode.image_file import Limits, open_image
from shared.system.errors import ImageError


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 32), "compression": "lzw"}])
def test_a_tiff_keeps_its_depth(tmp_path, dtype, options):
    image = random(50, 70, dtype=dtype)
    (read,), remarks = read_all(written(tmp_path, image, **options))
    assert read.dtype == dtype and np.array_equal(read[..., 0], image) and not remarks


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_either_byte_order_and_bigtiff(tmp_path, byteorder, big):
    image = random(40, 50, dtype=np.uint16) * np.uint16(201)
    (read,), _ = read_all(written(tmp_path, image, byteorder=byteorder, bigtiff=big))
    assert np.array_equal(read[..., 0], image) and read.dtype.isnative


@pytest.mark.parametrize(
    ("axes", "shape", "name", "options"),
    [
        ("TYX", (5, 32, 40), "a.tif", {"metadata": None}),  # no metadata
        ("TYX", (5, 32, 40), "a.tif", {}),  # tifffile's own description
        ("TCYX", (4, 2, 32, 40), "a.tif", {"imagej": True}),
        ("TZCYX", (2, 3, 2, 32, 40), "a.tif", {"imagej": True}),
        ("ZCYX", (3, 2, 32, 40), "a.ome.tif", {"ome": True}),
        ("CZYX", (2, 3, 32, 40), "a.ome.tif", {"ome": True, "compression": "zlib"}),
        ("TYXS", (3, 32, 40, 3), "a.tif", {"photometric": "rgb"}),
        ("CYX", (4, 32, 40), "a.tif", {"imagej": True}),
        ("CYX", (2, 32, 40), "a.ome.tif", {"ome": True}),
        ("YXC", (32, 40, 6), "a.tif", {}),
        ("YXS", (32, 40, 3), "a.tif", {"photometric": "rgb"}),
        ("SYX", (3, 32, 40), "a.tif", {"photometric": "rgb", "planarconfig": "separate"}),
        ("YXS", (32, 40, 5), "a.tif", {"photometric": "minisblack", "planarconfig": "contig"}),
    ],
)
def test_axes_become_frames_and_channels(tmp_path, axes, shape, name, options):
    array = random(*shape, dtype=np.uint16)
    if "metadata" not in options and options != {}:
        options = {**options, "metadata": {"axes": axes}}
    elif axes == "YXC":
        options = {"metadata": {"axes": axes}}
    frames, _ = read_all(written(tmp_path, array, name, **options))
    order = [axes.index(axis) for axis in (*(a for a in axes if a in "TZ"), "Y", "X", *(a for a in axes if a in "CS"))]
    expected = array.transpose(order).reshape(-1, 32, 40, array.size // len(frames) // 1280)
    assert np.array_equal(np.stack(frames), expected)


@pytest.mark.parametrize("imagej", [True, False])
def test_a_stack_with_one_header_for_all_frames(tmp_path, imagej):
    stack = random(20, 32, 40, dtype=np.uint16)
    path = written(tmp_path, stack, imagej=imagej, truncate=True, metadata={"axes": "TYX"})
    with tifffile.TiffFile(path) as tif:
        assert len(tif.pages) == 1
    frames, _ = read_all(path)
    assert np.array_equal(np.stack(frames)[..., 0], stack)
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(ImageError, match="truncated"):
        read_all(path)


def test_pages_of_different_sizes_are_all_read(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        images = [random(30, 40), random(50, 20), random(30, 40)]
        for image in images:
            writer.write(image, metadata=None)
    frames, _ = read_all(tmp_path / "a.tif")
    assert sorted(frame.shape for frame in frames) == sorted((*image.shape, 1) for image in images)


def test_palettes_become_grey_or_rgb(tmp_path):
    index = random(30, 40)
    colours = RNG.integers(0, 2**16, (3, 256)).astype(np.uint16)
    grey = np.tile(np.arange(256, dtype=np.uint16) * 257, (3, 1))
    (read,), _ = read_all(written(tmp_path, index, photometric="palette", colormap=colours))
    assert np.array_equal(read, np.asarray(Image.open(tmp_path / "a.tif").convert("RGB")))
    (read,), _ = read_all(written(tmp_path, index, photometric="palette", colormap=grey))
    assert np.array_equal(read[..., 0], index) and read.shape[2] == 1


def test_a_huge_number_of_channels_is_limited(tmp_path):
    path = written(tmp_path, random(30, 100, 100), imagej=True, metadata={"axes": "CYX"})
    with pytest.raises(ImageError, match="channels"):
        open_image(path, Limits(8, 0.05))


def test_extreme_compression_is_refused(tmp_path):
    path = written(tmp_path, np.zeros((10_000, 10_000), np.uint8), compression="zstd")
    assert path.stat().st_size < 50_000
    with pytest.raises(ImageError, match="declares 10000 x 10000 px"):
        open_image(path, Limits())


def pages(path, *arrays, **options):
    with tifffile.TiffWriter(path, **options) as file:
        for number, array in enumerate(arrays):
            file.write(array, metadata=None, **({"subfiletype": 1} if number == 2 else {}))
    return path


def test_pages_of_several_sizes_and_types_are_frames_numbered_through_the_file(tmp_path):
    arrays = random(30, 40), random(50, 60), random(15, 20), random(30, 40, dtype=np.uint16)
    path = pages(tmp_path / "a.tif", *arrays)
    frames, remarks = read_all(path)
    shown = [frame[..., 0] for frame in frames]
    assert all(np.array_equal(one, other) for one, other in zip(shown, (arrays[0], arrays[1], arrays[3]), strict=True))
    assert remarks == ["left out: a reduced copy of 20 x 15 px"]
    with open_image(path, Limits()) as file:
        assert [frame.number for frame in file.frames] == [0, 1, 2]


def test_several_images_of_ome_and_stacks_beside_each_other(tmp_path):
    first, second = random(3, 32, 40), random(2, 2, 24, 30, dtype=np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        file.write(first, metadata={"axes": "TYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5})
        file.write(second, metadata={"axes": "TCYX", "PhysicalSizeX": 2.0, "PhysicalSizeY": 2.0})
    frames, remarks = read_all(tmp_path / "a.ome.tif")
    assert [frame.shape for frame in frames] == [(32, 40, 1)] * 3 + [(24, 30, 2)] * 2 and not remarks
    assert np.array_equal(frames[4], second[1].transpose(1, 2, 0))
    with open_image(tmp_path / "a.ome.tif", Limits()) as file:
        assert [(one.number, one.um_per_px) for one in file.frames] == [
            (0, 0.5),
            (1, 0.5),
            (2, 0.5),
            (3, 2.0),
            (4, 2.0),
        ]


def test_a_part_that_is_too_small_is_left_out_and_the_others_are_kept(tmp_path):
    frames, remarks = read_all(pages(tmp_path / "a.tif", random(30, 40), random(4, 40)))
    assert [frame.shape for frame in frames] == [(30, 40, 1)] and "smaller than 8 px" in remarks[0]
    with pytest.raises(ImageError, match="smaller than 8 px"):
        read_all(written(tmp_path, random(4, 40), "small.tif"))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((64, 128, 12), (1, 64, 128, 12)),
        ((64, 128, 5), (1, 64, 128, 5)),
        ((3, 64, 128, 5), (3, 64, 128, 5)),
        ((40, 36, 34), (40, 36, 34, 1)),  # a stack of small planes
        ((6, 64, 12), (6, 64, 12, 1)),
    ],
)
def test_channels_last_without_names_of_axes(tmp_path, shape, expected):
    array = random(*shape, dtype=np.uint16)
    frames, remarks = read_all(written(tmp_path, array, photometric="minisblack"))
    assert np.array_equal(np.stack(frames), array.reshape(expected))
    assert any("channels" in remark for remark in remarks) == (expected[3] > 1)


def test_a_circle_of_pages_is_refused(tmp_path):
    path = pages(tmp_path / "a.tif", random(30, 40), random(30, 40))
    data = bytearray(path.read_bytes())
    first = int.from_bytes(data[4:8], "little")
    link = first + 2 + 12 * int.from_bytes(data[first : first + 2], "little")
    second = int.from_bytes(data[link : link + 4], "little")
    end = second + 2 + 12 * int.from_bytes(data[second : second + 2], "little")
    data[end : end + 4] = first.to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(ImageError, match="one that came before"):
        read_all(path)


@pytest.mark.parametrize("photometric", ["cielab", "ycbcr", "separated"])
def test_other_colours_than_grey_and_rgb_are_refused(tmp_path, photometric):
    samples = 4 if photometric == "separated" else 3
    path = written(tmp_path, random(30, 40, samples), photometric=photometric, metadata=None)
    with pytest.raises(ImageError, match="save it as RGB"):
        read_all(path)


def test_a_jpeg_in_a_tiff_is_rgb(tmp_path):
    image = np.full((32, 48, 3), (200, 40, 90), np.uint8)
    image[:, 24:] = (10, 220, 60)
    Image.fromarray(image).save(tmp_path / "a.tif", compression="jpeg")
    (read,), _ = read_all(tmp_path / "a.tif")
    assert np.abs(read.astype(int) - image)[:, 2:20].max() < 20


@pytest.mark.parametrize("count", [0, 7, 10**6])
def test_a_wrong_byte_count_is_corrected_where_the_pixels_are_there(tmp_path, count):
    image = random(30, 40)
    path = written(tmp_path, image, metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        tif.pages.first.tags["StripByteCounts"].overwrite(count)
    (read,), remarks = read_all(path)
    assert np.array_equal(read[..., 0], image) and f"counts {count} bytes" in remarks[0]


def test_a_stale_number_of_planes_is_a_remark(tmp_path):
    path = written(tmp_path, random(4, 32, 40), imagej=True, metadata={"axes": "TYX"})
    path.write_bytes(path.read_bytes().replace(b"images=4", b"images=9").replace(b"frames=4", b"frames=9"))
    frames, remarks = read_all(path)
    assert len(frames) == 4 and any("declares 9 planes" in remark for remark in remarks)


def test_the_orientation_of_a_tiff_is_a_remark(tmp_path):
    image = random(30, 40)
    path = written(tmp_path, image, metadata=None, extratags=[(274, 3, 1, 6, True)])
    (read,), remarks = read_all(path)
    assert np.array_equal(read[..., 0], image) and "orientation (6) is not applied" in remarks[0]
