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
