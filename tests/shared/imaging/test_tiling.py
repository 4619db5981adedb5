"""Tiles cover an image once, and are reflected beyond its border."""

import numpy as np
import pytest

from shared.imaging.tiling import cut_tile, fitting_tile, reflect_index, tile_origins, tile_spans


@pytest.mark.parametrize("size", [1, 63, 64, 65, 500])
def test_cores_cover_every_pixel_once(size: int) -> None:
    origins = tile_origins(size, tile=96, halo=16)
    assert origins == list(range(0, size, 64))
    with pytest.raises(ValueError, match="halo"):
        tile_origins(size, tile=32, halo=16)


@pytest.mark.parametrize("size", [1, 63, 64, 65, 96, 97, 256, 500, 1022])
@pytest.mark.parametrize(("tile", "unit"), [(64, 1), (80, 1), (144, 1), (64, 4)])
def test_spans_cover_every_pixel_once_with_a_halo_between(size: int, tile: int, unit: int) -> None:
    spans = tile_spans(size, tile, 8, unit)
    assert [start for _, start, _ in spans] == [0, *(stop for _, _, stop in spans[:-1])] and spans[-1][2] == size
    assert all(first % unit == 0 and (0 <= first < size - tile + unit or size < tile) for first, _, _ in spans)
    for (first, start, _), (before, _, stop) in zip(spans[1:], spans, strict=False):
        assert start - first >= 8 and before + tile - stop >= 8


def test_a_tile_fits_the_image_better_where_it_may_be_larger() -> None:
    sides = {size: fitting_tile(size, 128, 16) for size in (100, 256, 360, 512, 1024)}
    assert sides == {100: 128, 256: 144, 360: 144, 512: 128, 1024: 160}
    for size, side in sides.items():
        assert side * len(tile_spans(size, side, 16)) <= 128 * len(tile_spans(size, 128, 16))


@pytest.mark.parametrize("size", [2, 3, 17])
def test_reflection_is_numpys(size: int) -> None:
    expected = np.pad(np.arange(size), (40, 25), mode="reflect")
    np.testing.assert_array_equal(reflect_index(-40, size + 25, size), expected)


def test_a_tile_is_cut_from_the_reflected_image() -> None:
    image = np.random.default_rng(0).random((30, 41, 2))
    padded = np.pad(image, ((8, 64), (8, 64), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(cut_tile(image, 16, 32, 48, 8), padded[16:64, 32:80])
    assert cut_tile(image[:1, :1], 0, 0, 32, 8).shape == (32, 32, 2)
