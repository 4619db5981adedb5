"""Vendor formats through bioio."""

import numpy as np
import pytest
from bad_images import picture
from image_files import DEFAULT_LIMITS, random, read_all, written

from shared.readers.decode.image_file import open_image
from shared.system.errors import ImageError


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
    with open_image(tmp_path / "movie.czi", DEFAULT_LIMITS) as file:
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
