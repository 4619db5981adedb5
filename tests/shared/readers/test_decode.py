"""Plain image files: what other libraries wrote comes back pixel for pixel, and what is broken is named."""

import os
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile
from bad_images import BAD, encoded, picture, tiff
from PIL import Image

from shared.readers.decode.image_file import Limits, open_image
from shared.readers.decode.pixel_values import to_storable
from shared.system.errors import ImageError

ROOT = Path(__file__).parents[3]
DEFAULTS = Limits()
RNG = np.random.default_rng(1)


def read_all(path: Path, limits: Limits = DEFAULTS) -> tuple[list[np.ndarray], list[str]]:
    with open_image(path, limits) as file:
        pairs = [file.read(i) for i in range(len(file.frames))]
        for frame, (image, _) in zip(file.frames, pairs, strict=True):
            assert image.shape[:2] == (frame.height, frame.width)
    return [to_storable(image) for image, _ in pairs], [remark for _, remarks in pairs for remark in remarks]


def random(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return RNG.integers(0, 250, shape).astype(dtype)


def written(folder: Path, array: np.ndarray, name: str = "a.tif", **options: object) -> Path:
    tifffile.imwrite(folder / name, array, **options)
    return folder / name


# --- TIFF ---------------------------------------------------------------------------------------------------------


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
        ("TYX", (5, 32, 40), "a.tif", {"metadata": None}),  # pages that say nothing
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


def test_pages_of_different_sizes_are_all_there(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        images = [random(30, 40), random(50, 20), random(30, 40)]
        for image in images:
            writer.write(image, metadata=None)
    frames, _ = read_all(tmp_path / "a.tif")
    assert sorted(frame.shape for frame in frames) == sorted((*image.shape, 1) for image in images)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"imagej": True, "resolution": (2.0, 2.0), "metadata": {"unit": "um"}}, 0.5),
        ({"imagej": True, "resolution": (2.0, 2.0), "metadata": {"unit": "pixel"}}, None),
        ({"imagej": True, "resolution": (2.0, 2.0), "metadata": {"unit": "nm"}}, 0.0005),
        ({"imagej": True, "resolution": (2.0, 4.0), "metadata": {"unit": "um"}}, None),  # not square
        ({"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 0.65, "PhysicalSizeY": 0.65}}, 0.65),
        (
            {
                "ome": True,
                "metadata": {
                    "axes": "YX",
                    "PhysicalSizeX": 325,
                    "PhysicalSizeXUnit": "nm",
                    "PhysicalSizeY": 325,
                    "PhysicalSizeYUnit": "nm",
                },
            },
            0.325,
        ),
        ({"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}, 0.5),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),
        ({}, None),
    ],
)
def test_the_scale_is_taken_where_it_is_real(tmp_path, options, expected):
    with open_image(written(tmp_path, random(30, 40), **options), Limits()) as file:
        assert file.frames[0].um_per_px == expected


def test_palettes_become_grey_or_rgb(tmp_path):
    index = random(30, 40)
    colours = RNG.integers(0, 2**16, (3, 256)).astype(np.uint16)
    grey = np.tile(np.arange(256, dtype=np.uint16) * 257, (3, 1))
    (read,), _ = read_all(written(tmp_path, index, photometric="palette", colormap=colours))
    assert np.array_equal(read, np.asarray(Image.open(tmp_path / "a.tif").convert("RGB")))
    (read,), _ = read_all(written(tmp_path, index, photometric="palette", colormap=grey))
    assert np.array_equal(read[..., 0], index) and read.shape[2] == 1


# --- PNG, JPEG, BMP -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "LA", "RGBA"])
def test_png_modes(tmp_path, mode):
    picture_ = Image.fromarray(picture()).convert(mode)
    picture_.save(tmp_path / "a.png")
    (read,), remarks = read_all(tmp_path / "a.png")
    grey = mode in ("1", "L", "LA")
    expected = np.asarray(picture_.convert("L" if grey else "RGB"))
    assert read.shape[2] == (1 if grey else 3) and np.array_equal(read.squeeze(), expected)
    assert not remarks  # alpha was constant


def test_png_16_bit(tmp_path):
    image = random(40, 50, dtype=np.uint16) * np.uint16(255)
    Image.fromarray(image).save(tmp_path / "a.png")
    (read,), _ = read_all(tmp_path / "a.png")
    assert read.dtype == np.uint16 and np.array_equal(read[..., 0], image)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_alpha_that_varies_is_dropped_and_said(tmp_path, suffix):
    image = random(40, 50, 4)
    if suffix == ".png":
        Image.fromarray(image, "RGBA").save(tmp_path / "a.png")
    else:
        written(tmp_path, image, photometric="rgb", extrasamples=["unassalpha"])
    (read,), remarks = read_all(tmp_path / f"a{suffix}")
    assert np.array_equal(read, image[..., :3]) and "alpha" in remarks[0]


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg(tmp_path, mode, progressive):
    Image.fromarray(picture()).convert(mode).save(tmp_path / "a.jpg", progressive=progressive, quality=95)
    (read,), _ = read_all(tmp_path / "a.jpg")
    expected = np.asarray(Image.open(tmp_path / "a.jpg"))
    assert np.abs(read.squeeze().astype(int) - expected).max() <= 2  # decoders may round differently


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_bmp(tmp_path, mode):
    Image.fromarray(picture()).convert(mode).save(tmp_path / "a.bmp")
    (read,), _ = read_all(tmp_path / "a.bmp")
    expected = np.asarray(Image.open(tmp_path / "a.bmp").convert("RGB"))
    assert np.array_equal(np.broadcast_to(read, expected.shape), expected)
    assert read.shape[2] == (1 if mode in ("1", "L") else 3)


def test_the_first_bytes_say_what_a_file_is(tmp_path):
    (tmp_path / "a.tif").write_bytes(encoded("PNG"))
    (read,), _ = read_all(tmp_path / "a.tif")
    assert np.array_equal(read, picture())


def test_a_jpeg_with_bytes_behind_its_end_is_whole(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG") + bytes(100))
    assert len(read_all(tmp_path / "a.jpg")[0]) == 1


# --- values -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "low", "high", "becomes"),
    [
        (np.bool_, 0, 1, np.uint8),
        (np.int8, 0, 127, np.uint8),
        (np.int8, -5, 100, np.float32),
        (np.int16, 0, 3000, np.uint16),
        (np.int16, -300, 3000, np.float32),
        (np.int32, 0, 65_535, np.uint16),
        (np.uint32, 0, 65_536, np.float32),
        (np.uint32, 0, 2**24 + 1, np.float64),
        (np.int64, -(2**40), 7, np.float64),
        (np.float16, -1, 3, np.float32),
        (np.float64, 0.5, 3, np.float32),
        (np.float64, 0.1, 3, np.float64),
    ],
)
def test_values_survive_every_conversion(dtype, low, high, becomes):
    image = np.array([[[low], [high]]]).astype(dtype)
    stored = to_storable(image)
    assert stored.dtype == becomes
    assert np.array_equal(stored.astype(np.float64), image.astype(np.float64))


@pytest.mark.parametrize("dtype", [np.uint64, np.int64])
def test_integers_beyond_a_double_are_refused(dtype):
    with pytest.raises(ImageError, match="do not fit"):
        to_storable(np.array([[[1], [2**53 + 1]]], dtype))


def test_one_constant_channel_is_no_reason_to_refuse():
    image = np.dstack([random(20, 20), np.zeros((20, 20), np.uint8)])
    assert np.array_equal(to_storable(image), image)


# --- what is broken -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_and_nothing_large_is_allocated(tmp_path, name):
    make, reason = BAD[name]
    if name.endswith(".czi") and _has_bioio():
        pytest.skip("the bioio extra is installed")
    path = tmp_path / name
    path.write_bytes(make())
    tracemalloc.start()
    try:
        with pytest.raises(ImageError) as error:
            read_all(path)
        assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
    finally:
        tracemalloc.stop()
    assert reason in str(error.value)


@pytest.mark.parametrize("name", [name for name in BAD if name.startswith("huge")])
def test_headers_without_data_are_refused_before_decoding(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(BAD[name][0]())
    with pytest.raises(ImageError):
        open_image(path, Limits())


def _has_bioio() -> bool:
    import importlib.util

    return importlib.util.find_spec("bioio") is not None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
def test_a_file_cut_anywhere_is_refused(tmp_path, kind):
    data = tiff(picture(), photometric="rgb", compression="zlib") if kind == "TIFF" else encoded(kind)
    path = tmp_path / "a.img"
    for size in range(0, len(data) - 1, max(1, len(data) // 60)):
        path.write_bytes(data[:size])
        with pytest.raises(ImageError):
            read_all(path)


def test_megapixels_are_limited_before_decoding(tmp_path):
    for name in ("a.tif", "a.png", "a.jpg", "a.bmp"):
        Image.fromarray(picture(600, 700)).save(tmp_path / name)
        with pytest.raises(ImageError, match="max_megapixels"):
            open_image(tmp_path / name, Limits(8, 0.4))
        open_image(tmp_path / name, Limits(8, 0.43)).close()


def test_a_huge_number_of_channels_is_limited(tmp_path):
    path = written(tmp_path, random(30, 100, 100), imagej=True, metadata={"axes": "CYX"})
    with pytest.raises(ImageError, match="channels"):
        open_image(path, Limits(8, 0.05))


def test_a_few_bytes_that_decode_to_many_are_refused(tmp_path):
    path = written(tmp_path, np.zeros((10_000, 10_000), np.uint8), compression="zstd")
    assert path.stat().st_size < 50_000
    with pytest.raises(ImageError, match="declares 10000 x 10000 px"):
        open_image(path, Limits())


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "link.tif").symlink_to(tmp_path / "nowhere.tif")
    os.mkfifo(tmp_path / "pipe.tif")
    for name in ("folder.tif", "link.tif", "pipe.tif", "absent.tif"):
        with pytest.raises(ImageError):
            open_image(tmp_path / name, Limits())


def test_no_read_permission_is_named():
    """As somebody other than root, whom permissions do not stop."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom shared.readers.decode.image_file import Limits, open_image\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "try: open_image(Path(sys.argv[1]), Limits())\nexcept Exception as error: print(type(error).__name__, error)"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "a.png"
        path.write_bytes(encoded("PNG"))
        path.chmod(0)
        done = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "ImageError no read permission", done.stderr


def test_decoding_is_checked_against_the_header(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG"))
    with open_image(tmp_path / "a.jpg", Limits()) as file:
        (tmp_path / "a.jpg").write_bytes(encoded("JPEG", picture(50, 50)))
        with pytest.raises(ImageError, match="header"):
            file.read(0)


def test_vendor_files_through_the_extra(tmp_path):
    """Needs `pip install 'cytoloom[bioio]'`; without it the bad file slide.czi shows the error that names it."""
    pytest.importorskip("bioio_czi", reason="the bioio extra is not installed")
    pytest.importorskip("bioio_tifffile", reason="the bioio extra is not installed")
    from pylibCZIrw import czi

    movie = random(3, 2, 60, 80, dtype=np.uint16)
    with czi.create_czi(str(tmp_path / "movie.czi")) as file:
        for t, c in np.ndindex(3, 2):
            file.write(movie[t, c][..., None], plane={"T": t, "C": c})
        file.write_metadata("movie", scale_x=0.325e-6, scale_y=0.325e-6)
    frames, _ = read_all(tmp_path / "movie.czi")
    assert np.array_equal(np.stack(frames), movie.transpose(0, 2, 3, 1))
    with open_image(tmp_path / "movie.czi", DEFAULTS) as file:
        assert file.frames[0].um_per_px == 0.325
    colour = picture()
    with czi.create_czi(str(tmp_path / "colour.czi")) as file:
        file.write(np.ascontiguousarray(colour[..., ::-1]))  # its order is B, G, R
    written(tmp_path, colour, "slide.svs", photometric="rgb", tile=(16, 16), description="Aperio Image Library")
    for name in ("colour.czi", "slide.svs"):
        (read,), _ = read_all(tmp_path / name)
        assert np.array_equal(read, colour)
    (tmp_path / "cut.czi").write_bytes((tmp_path / "movie.czi").read_bytes()[:4000])
    with pytest.raises(ImageError, match="damaged"):
        read_all(tmp_path / "cut.czi")
