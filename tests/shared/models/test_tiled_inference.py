"""Tiled prediction against the whole image at once, and blocks against memory."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from real_labels import wheel_nuclei
from small_segmentor import CONFIG, trained
from torch import nn

from shared.imaging.normalise import Normalisation
from shared.imaging.tiling import cut_tile, fitting_tile, reflect_index, tile_origins, tile_spans
from shared.models.tiled_inference import predict, predict_blocks


class Local(nn.Module):
    """A network that sees 6 px around each pixel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(*(nn.Conv2d(c, d, 5, padding=2) for c, d in ((1, 4), (4, 4), (4, 1))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def local(downsample: int = 1) -> SimpleNamespace:
    """Its config."""
    return SimpleNamespace(encoder=SimpleNamespace(normalisation=Normalisation(), channels=1, downsample=downsample))


@pytest.mark.parametrize("size", [1, 63, 64, 65, 500])
def test_cores_cover_every_pixel_once(size):
    origins = tile_origins(size, tile=96, halo=16)
    assert origins == list(range(0, size, 64))
    with pytest.raises(ValueError, match="halo"):
        tile_origins(size, tile=32, halo=16)


@pytest.mark.parametrize("size", [1, 63, 64, 65, 96, 97, 256, 500, 1022])
@pytest.mark.parametrize(("tile", "unit"), [(64, 1), (80, 1), (144, 1), (64, 4)])
def test_spans_cover_every_pixel_once_with_a_halo_between(size, tile, unit):
    spans = tile_spans(size, tile, 8, unit)
    assert [start for _, start, _ in spans] == [0, *(stop for _, _, stop in spans[:-1])] and spans[-1][2] == size
    assert all(first % unit == 0 and (0 <= first < size - tile + unit or size < tile) for first, _, _ in spans)
    for (first, start, _), (before, _, stop) in zip(spans[1:], spans, strict=False):
        assert start - first >= 8 and before + tile - stop >= 8


def test_a_tile_fits_the_image_better_where_it_may_be_larger():
    sides = {size: fitting_tile(size, 128, 16) for size in (100, 256, 360, 512, 1024)}
    assert sides == {100: 128, 256: 144, 360: 144, 512: 128, 1024: 160}
    for size, side in sides.items():
        assert side * len(tile_spans(size, side, 16)) <= 128 * len(tile_spans(size, 128, 16))


@pytest.mark.parametrize("size", [2, 3, 17])
def test_reflection_is_numpys(size):
    expected = np.pad(np.arange(size), (40, 25), mode="reflect")
    np.testing.assert_array_equal(reflect_index(-40, size + 25, size), expected)


def test_a_tile_is_cut_from_the_reflected_image():
    image = np.random.default_rng(0).random((30, 41, 2))
    padded = np.pad(image, ((8, 64), (8, 64), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(cut_tile(image, 16, 32, 48, 8), padded[16:64, 32:80])
    assert cut_tile(image[:1, :1], 0, 0, 32, 8).shape == (32, 32, 2)


@pytest.mark.parametrize("size", [(40, 50), (200, 131), (1, 70)])
def test_tiles_give_what_the_whole_image_gives(size):
    image = wheel_nuclei()[0][: size[0], : size[1], None]
    found = predict(Local(), local(), image, tile=64, halo=8, batch_size=3, device="cpu")
    lacking = [(0, max(0, fitting_tile(length, 64, 8) - length)) for length in size]
    whole = np.pad(Normalisation()(image)[..., 0], lacking, mode="reflect")
    with torch.no_grad():
        expected = torch.sigmoid(Local()(torch.from_numpy(whole)[None, None])[0, 0, : size[0], : size[1]])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32 and found.shape == size


@pytest.mark.parametrize("factor", [2, 4])
def test_a_shrunk_image_gives_what_opencv_makes_of_the_whole(factor):
    image = wheel_nuclei()[0][:200, :160, None]
    found = predict(Local(), local(factor), image, tile=64, halo=8, batch_size=3, device="cpu")
    sides = [fitting_tile(length, 64 * factor, 8 * factor, 16 * factor) for length in (200, 160)]
    lacking = [(0, max(0, side - length)) for side, length in zip(sides, (200, 160), strict=True)]
    whole = np.pad(Normalisation()(image)[..., 0], lacking, mode="reflect")
    small = cv2.resize(whole, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    with torch.no_grad():
        logits = Local()(torch.from_numpy(small)[None, None])[0, 0].numpy()
    large = cv2.resize(logits, whole.shape[::-1], interpolation=cv2.INTER_LINEAR)[:200, :160]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-large)), atol=1e-5)


def test_into_a_memory_map_it_is_the_same_bit_for_bit(tmp_path):
    image = wheel_nuclei()[0][:200, :230, None]
    options = {"tile": 96, "batch_size": 4, "device": "cpu"}
    expected = predict(trained(), CONFIG, image, **options)
    np.save(tmp_path / "image.npy", image)
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.float32, (1, 200, 230))
    predict_blocks(trained(), CONFIG, np.load(tmp_path / "image.npy", mmap_mode="r"), out, **options)
    np.testing.assert_array_equal(out[0], expected)


def test_the_batch_size_does_not_matter():
    image = wheel_nuclei()[0][:200, :230, None]
    one, five = (predict(trained(), CONFIG, image, tile=96, batch_size=n, device="cpu") for n in (1, 5))
    np.testing.assert_allclose(one, five, atol=1e-4)
    assert 0.05 < (one > 0.5).mean() < 0.5


def test_other_channels_and_types_are_taken():
    image = np.repeat(wheel_nuclei()[0][:96, :96, None], 3, axis=2)
    grey = predict(trained(), CONFIG, image[..., :1], tile=96, batch_size=1, device="cpu")
    for shown in (image, image.astype(np.float64) / 7):
        found = predict(trained(), CONFIG, shown, tile=96, batch_size=1, device="cpu")
        np.testing.assert_allclose(found, grey, atol=1e-3)
    assert not F.relu(torch.from_numpy(grey)).isnan().any()
