"""Broken and unusual files: the reason is named, and nothing large is allocated."""

import importlib.util
import os
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from bad_images import BAD, encoded, picture, tiff
from image_files import read_all
from PIL import Image

from shared.readers.decode.image_file import Limits, open_image
from shared.system.errors import ImageError

ROOT = Path(__file__).parents[4]


def test_the_first_bytes_determine_the_format(tmp_path):
    (tmp_path / "a.tif").write_bytes(encoded("PNG"))
    (read,), _ = read_all(tmp_path / "a.tif")
    assert np.array_equal(read, picture())


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_and_nothing_large_is_allocated(tmp_path, name):
    make, reason = BAD[name]
    if name.endswith(".czi") and importlib.util.find_spec("bioio") is not None:
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


def test_other_than_regular_files_are_refused(tmp_path):
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "link.tif").symlink_to(tmp_path / "nowhere.tif")
    os.mkfifo(tmp_path / "pipe.tif")
    for name in ("folder.tif", "link.tif", "pipe.tif", "absent.tif"):
        with pytest.raises(ImageError):
            open_image(tmp_path / name, Limits())


def test_no_read_permission_is_named():
    """As a user other than root, whom permissions do not restrict."""
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
