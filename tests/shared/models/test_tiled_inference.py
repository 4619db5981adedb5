"""Tiled prediction against the whole image at once, memory maps against memory, and images of another pixel size."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from real_labels import wheel_nuclei
from small_segmentor import CONFIG, trained
from torch import nn

from shared.imaging.normalise import Normalisation
from shared.imaging.resize import resize
from shared.imaging.tiling import fitting_tile
from shared.metrics.tally import tally
from shared.models.config import ModelInput
from shared.models.network import as_network
from shared.models.segmentor import upsample
from shared.models.tiled_inference import TiledPredictor, predict_at_scale
from shared.targets import TARGETS


class Local(nn.Module):
    """A network of one map that sees 6 px around each pixel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(*(nn.Conv2d(c, d, 5, padding=2) for c, d in ((1, 4), (4, 4), (4, 1))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


class LocalMaps(Local):
    """The same between downsampling and upsampling, as a segmentor."""

    def __init__(self, downsample: int) -> None:
        super().__init__()
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(upsample(self.layers(nn.functional.avg_pool2d(x, self.downsample)), self.downsample))


def local_predictor(downsample: int = 1) -> TiledPredictor:
    network = as_network(LocalMaps(downsample), "cpu")
    return TiledPredictor(network, ModelInput(channels=1, downsample=downsample), 1, tile=64, halo=8, batch_size=3)


def predictor(um_per_px: float | None = None, **settings) -> TiledPredictor:
    """The small segmentor, trained on images of this pixel size."""
    made = TiledPredictor.of(trained(), "cpu", **settings)
    return replace(made, input=made.input.model_copy(update={"um_per_px": um_per_px}))


@pytest.mark.parametrize("size", [(40, 50), (200, 131), (1, 70)])
def test_tiles_give_what_the_whole_image_gives(size):
    image = wheel_nuclei()[0][: size[0], : size[1], None]
    found = local_predictor()(image)
    lacking = [(0, max(0, fitting_tile(length, 64, 8) - length)) for length in size]
    whole = np.pad(Normalisation()(image)[..., 0], lacking, mode="reflect")
    with torch.no_grad():
        expected = torch.sigmoid(Local()(torch.from_numpy(whole)[None, None])[0, :, : size[0], : size[1]])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32 and found.shape == (1, *size)


@pytest.mark.parametrize("factor", [2, 4])
def test_a_downsampled_image_gives_what_opencv_makes_of_the_whole(factor):
    image = wheel_nuclei()[0][:200, :160, None]
    found = local_predictor(factor)(image)[0]
    sides = [fitting_tile(length, 64 * factor, 8 * factor, 16 * factor) for length in (200, 160)]
    lacking = [(0, max(0, side - length)) for side, length in zip(sides, (200, 160), strict=True)]
    whole = np.pad(Normalisation()(image)[..., 0], lacking, mode="reflect")
    small = cv2.resize(whole, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    with torch.no_grad():
        logits = Local()(torch.from_numpy(small)[None, None])[0, 0].numpy()
    large = cv2.resize(logits, whole.shape[::-1], interpolation=cv2.INTER_LINEAR)[:200, :160]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-large)), atol=1e-5)


def test_memory_maps_give_the_same_bits_as_memory(tmp_path):
    image = wheel_nuclei()[0][:200, :230, None]
    tiled = predictor(tile=96, batch_size=4)
    expected = tiled(image)
    np.save(tmp_path / "image.npy", image)
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", np.float32, (2, 200, 230))
    tiled.predict_into(out, np.load(tmp_path / "image.npy", mmap_mode="r"))
    np.testing.assert_array_equal(out, expected)


def test_the_batch_size_does_not_matter():
    image = wheel_nuclei()[0][:200, :230, None]
    one, five = (predictor(tile=96, batch_size=n)(image)[0] for n in (1, 5))
    np.testing.assert_allclose(one, five, atol=1e-4)
    assert 0.05 < (one > 0.5).mean() < 0.5


def test_other_channels_and_types_are_taken():
    image = np.repeat(wheel_nuclei()[0][:96, :96, None], 3, axis=2)
    tiled = predictor(tile=96, batch_size=1)
    grey = tiled(image[..., :1])
    for shown in (image, image.astype(np.float64) / 7):
        np.testing.assert_allclose(tiled(shown), grey, atol=1e-3)
    assert np.isfinite(grey).all()


# --- pixel size ---------------------------------------------------------------------------------------------------


def f1(maps: np.ndarray, image: np.ndarray, truth: np.ndarray) -> float:
    """F1 at an IoU of 0.5 of the instances decoded from the maps."""
    target = TARGETS[CONFIG.architecture.target]
    return tally(truth, target.decode(maps.copy(), image, CONFIG.postprocessing).labels).metrics()["f1"]


def test_an_image_of_twice_the_pixel_size_is_predicted_at_the_models():
    """Nuclei that appear at half the size are found at the model's scale, and missed at the image's own."""
    image, truth = (plane[256:] for plane in wheel_nuclei())  # not trained on
    small = resize(image[..., None], (128, 256))
    small_truth = cv2.resize(truth, (256, 128), interpolation=cv2.INTER_NEAREST)
    tiled = predictor(um_per_px=0.5)
    full = f1(tiled(image[..., None]), image[..., None], truth)
    rescaled = predict_at_scale(tiled, small, 1.0)
    assert rescaled.shape == (2, 128, 256) and rescaled.dtype == np.float32
    assert rescaled.min() >= 0 and rescaled.max() <= 1
    with_scale, without = (f1(maps, small, small_truth) for maps in (rescaled, tiled(small)))
    assert with_scale > without + 0.1 and with_scale > full - 0.15, (full, with_scale, without)


@pytest.mark.parametrize(("own", "trained_at"), [(None, 0.5), (0.5, None), (0.5, 0.5), (0.5001, 0.5)])
def test_an_image_of_unknown_or_equal_pixel_size_is_predicted_as_it_is(own, trained_at):
    image = wheel_nuclei()[0][:100, :90, None]
    tiled = predictor(um_per_px=trained_at, tile=96)
    np.testing.assert_array_equal(predict_at_scale(tiled, image, own), tiled(image))


@pytest.mark.parametrize("dtype", [np.uint32, np.int64, np.float16])
def test_pixel_types_that_opencv_cannot_resize_are_converted(dtype):
    image = (wheel_nuclei()[0][:64, :64, None] // 16).astype(dtype)
    tiled = predictor(um_per_px=0.5, tile=96)
    np.testing.assert_allclose(
        predict_at_scale(tiled, image, 0.8), predict_at_scale(tiled, image.astype(np.float32), 0.8), atol=1e-5
    )
