"""The window of the texture follows the size of the cells, and grows with noise."""

import cv2
import numpy as np
import pytest
from real_labels import real_pairs

from shared.imaging.filters import log_local_std
from shared.imaging.grey import grey
from shared.metrics.tally import Tally, tally
from shared.proposals.otsu import otsu
from shared.proposals.texture import WINDOWS, TextureSample, TextureThreshold, fit_texture


def cells(zoom: float = 1.0, noise: float = 0.0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Grey planes of phase contrast and their masks, resized; noise: standard deviation, of normalised intensity."""
    rng, found = np.random.default_rng(0), []
    for image, labels in real_pairs("usiigaci/labelled", 4):
        size = (round(image.shape[1] * zoom), round(image.shape[0] * zoom))
        resized = cv2.resize(grey(image[..., None]), size, interpolation=cv2.INTER_AREA)
        noisy = (resized + rng.normal(0, noise, resized.shape)).astype(np.float32)
        found.append((noisy, cv2.resize((labels > 0).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)))
    return found


def fit(pairs: list[tuple[np.ndarray, np.ndarray]]) -> TextureThreshold:
    return fit_texture([TextureSample(plane) for plane, _ in pairs])


def dice(pairs: list[tuple[np.ndarray, np.ndarray]], found: TextureThreshold) -> float:
    masks = ((log_local_std(plane, found.window) > found.threshold).astype(np.uint8) for plane, _ in pairs)
    total = sum((tally(truth, mask) for mask, (_, truth) in zip(masks, pairs, strict=True)), Tally())
    return total.metrics()["dice"]


@pytest.mark.parametrize(("zoom", "window"), [(1, 2.8), (0.5, 1.4), (0.25, 0.7)])
def test_cells_of_any_size_are_found_alike(zoom, window):
    """With one window for all sizes, the Dice of the smallest is .17 lower."""
    pairs = cells(zoom)
    found = fit(pairs)
    assert found.window == pytest.approx(window, rel=0.5)
    assert dice(pairs, found) > dice(cells(), fit(cells())) - 0.03


def test_noise_asks_for_a_wider_window():
    pairs = cells(0.5, noise=0.1)
    found = fit(pairs)
    assert found.window > fit(cells(0.5)).window
    values = np.concatenate([TextureSample(plane).values[0] for plane, _ in pairs])
    small = TextureThreshold(**otsu(values).model_dump(), window=WINDOWS[0])
    assert dice(pairs, found) > dice(pairs, small) + 0.05


def test_images_of_one_value_and_no_images():
    """There is nothing to tell apart."""
    assert fit_texture([]).separability == 0
    assert fit_texture([TextureSample(np.full((32, 32), 0.5, np.float32))]).separability == 0
