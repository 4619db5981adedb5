"""Crops for training: every pixel can be reached, and a step always gets the same."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from shared.artifacts.image_set import ImageReader, ImageWriter
from shared.artifacts.kinds import ImageSet
from shared.artifacts.manifest import seal
from shared.data.crops import Crops, Window, cut_window, orient
from shared.imaging.normalise import Normalisation
from shared.models.config import ModelInput
from shared.training.seeds import step_generator


@pytest.fixture
def reader(tmp_path: Path) -> ImageReader:
    """Three 16-bit images of two channels; the last is smaller than a crop."""
    rng = np.random.default_rng(0)
    with ImageWriter(tmp_path / "images") as writer:
        for key, shape in {"a": (100, 120, 2), "b": (90, 90, 2), "c": (20, 50, 2)}.items():
            writer.add(key, rng.integers(0, 65_535, shape).astype(np.uint16), source=key)
    seal(tmp_path / "images", ImageSet)
    return ImageReader(tmp_path / "images")


def crops(reader: ImageReader, **settings) -> Crops:
    given = {"size": 32, "model_input": ModelInput(channels=2), **settings}
    return Crops(reader, reader.keys(), **given)


def test_a_crop_is_the_normalised_image(reader: ImageReader) -> None:
    image = Normalisation()(reader.read("a"))
    ours = crops(reader).cut(Window("a", 10, 20, 32))
    np.testing.assert_array_equal(ours, image[10:42, 20:52])
    oriented = crops(reader).cut(Window("a", 10, 20, 32, quarter_turns=1, flip=True))
    np.testing.assert_array_equal(oriented, np.rot90(image[10:42, 20:52])[:, ::-1])


def test_the_eight_orientations_are_all_different() -> None:
    square = np.arange(9).reshape(3, 3)
    seen = {orient(square, Window("", 0, 0, 3, turns, flip)).tobytes() for turns in range(4) for flip in (False, True)}
    assert len(seen) == 8


def test_beyond_the_edge_the_image_is_reflected() -> None:
    image = np.random.default_rng(0).random((20, 25, 2)).astype(np.float32)
    expected = cv2.copyMakeBorder(image, 0, 10, 0, 12, cv2.BORDER_REFLECT_101)[:24, 8:]
    ours = cut_window(image, Window("", 0, 8, 24))
    np.testing.assert_array_equal(ours, expected[:, :24])


def test_batches_depend_on_the_generator_alone(reader: ImageReader) -> None:
    first, second = crops(reader), crops(reader, cache_bytes=1)
    first.batch(3, step_generator(0, 0))
    one, two = first.batch(6, step_generator(0, 1)), second.batch(6, step_generator(0, 1))
    assert one.shape == (6, 32, 32, 2) and one.dtype == np.float32
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, first.batch(6, step_generator(0, 2)))


def test_windows_reach_every_corner_of_every_image(reader: ImageReader) -> None:
    windows = crops(reader).windows(4000, np.random.default_rng(0))
    assert {w.key for w in windows} == {"a", "b", "c"}
    inside = [w for w in windows if w.key == "a"]
    assert min(w.y for w in inside) == 0 == min(w.x for w in inside)
    assert max(w.y + w.side for w in inside) == 100 and max(w.x + w.side for w in inside) == 120
    assert {w.side for w in inside} == set(range(26, 41))  # 32 px, by up to 1.25
    share = sum(w.key == "c" for w in windows) / len(windows)
    assert share == pytest.approx(1000 / 21_100, abs=0.02)  # by area


def test_scale_jitter_widens_the_range_of_sizes(reader: ImageReader) -> None:
    for scale, smallest, largest in ((1.0, 32, 32), (2.0, 16, 64)):
        sides = {w.side for w in crops(reader, scale_jitter=scale).windows(3000, np.random.default_rng(0))}
        assert (min(sides), max(sides)) == (smallest, largest)
    assert crops(reader, scale_jitter=4.0).batch(8, np.random.default_rng(0)).shape == (8, 32, 32, 2)
