"""PNG, JPEG and BMP files that other libraries wrote are decoded pixel by pixel."""

import numpy as np
import pytest
from bad_images import encoded, picture
from image_files import random, read_all, written
from PIL import Image, ImageOps

from shared.readers.decode.image_file import Limits, open_image
from shared.readers.decode.orientation import exif_orientation
from shared.system.errors import ImageError


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
def test_varying_alpha_is_dropped_with_a_remark(tmp_path, suffix):
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


def test_bytes_after_the_end_of_a_jpeg_are_ignored(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG") + bytes(100))
    assert len(read_all(tmp_path / "a.jpg")[0]) == 1


def test_decoding_is_checked_against_the_header(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encoded("JPEG"))
    with open_image(tmp_path / "a.jpg", Limits()) as file:
        (tmp_path / "a.jpg").write_bytes(encoded("JPEG", picture(50, 50)))
        with pytest.raises(ImageError, match="header"):
            file.read(0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_images_are_turned_as_viewers_turn_them(tmp_path, orientation, suffix):
    """Checked against Pillow."""
    stored = np.zeros((24, 40), np.uint8)
    stored[2:9, 3:12], stored[14:20, 25:38] = 250, 120
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(stored).save(path, exif=exif, **({"quality": 98} if suffix == "jpg" else {}))
    shown = np.array(ImageOps.exif_transpose(Image.open(path)))
    (read,), remarks = read_all(path)
    assert read.shape[:2] == shown.shape and np.abs(read[..., 0].astype(int) - shown).max() < 12
    assert len(remarks) == (orientation != 1)
    with open_image(path, Limits()) as file:
        assert (file.frames[0].height, file.frames[0].width) == shown.shape


@pytest.mark.parametrize(
    "exif", [b"", b"II*\0", b"MM\0*\0\0\0\x08\xff\xff", b"II*\0\x08\0\0\0\x01\0\x12\x01\x04\0" + b"\xff" * 8]
)
def test_damaged_metadata_turns_nothing(exif):
    assert exif_orientation(exif) == 1
