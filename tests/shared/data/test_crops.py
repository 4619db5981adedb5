"""Crops for training: every pixel reachable, the same for the same step, memory bounded. And pictures of features."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy import ndimage
from shared.data.image_cache import ImageCache

from shared.artifacts.image_set import ImageReader, ImageWriter
from shared.artifacts.kinds import ImageSet
from shared.artifacts.manifest import seal
from shared.data.augmentation import augmented, blurred, jitter_intensity, noisy, rotated_square
from shared.data.crops import Crops, Window, cut_window, resized, turn
from shared.imaging.normalise import Normalisation
from shared.imaging.pca import pca_rgb
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
    given = {"size": 32, "channels": 2, "normalisation": Normalisation(), **settings}
    return Crops(reader, reader.keys(), **given)


def test_a_crop_is_the_normalised_image(reader: ImageReader) -> None:
    image = Normalisation()(reader.read("a"))
    ours = crops(reader).cut(Window("a", 10, 20, 32))
    np.testing.assert_array_equal(ours, image[10:42, 20:52])
    turned_crop = crops(reader).cut(Window("a", 10, 20, 32, turns=1, flip=True))
    np.testing.assert_array_equal(turned_crop, np.rot90(image[10:42, 20:52])[:, ::-1])


def test_the_eight_orientations_are_all_different() -> None:
    square = np.arange(9).reshape(3, 3)
    seen = {turn(square, Window("", 0, 0, 3, turns, flip)).tobytes() for turns in range(4) for flip in (False, True)}
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


def test_the_cache_keeps_within_its_limit(reader: ImageReader) -> None:
    sizes = {key: reader.read(key).nbytes for key in "abc"}
    cache = ImageCache(reader, Normalisation(), limit=sizes["a"] + sizes["c"])
    for key in "acbabcca":
        image, limits = cache.get(key)
        np.testing.assert_array_equal(image, reader.read(key))
        assert limits == Normalisation().limits(image)
        assert cache.bytes <= cache.limit
    tight = ImageCache(reader, Normalisation(), limit=1)
    for key in "ab":
        tight.get(key)
        assert tight.bytes == sizes[key]  # the one in hand, no other


def test_resizing_keeps_the_mean() -> None:
    crop = np.random.default_rng(0).random((48, 48, 3)).astype(np.float32)
    for size in (24, 48, 64):
        assert resized(crop, size).shape == (size, size, 3)
        np.testing.assert_allclose(resized(crop, size).mean(axis=(0, 1)), crop.mean(axis=(0, 1)), atol=0.01)


def test_intensity_jitter_keeps_the_order_of_intensities() -> None:
    ramp = np.linspace(-0.5, 1.5, 400, dtype=np.float32).reshape(20, 20, 1)
    shifts = []
    for seed in range(20):
        out = jitter_intensity(ramp, np.random.default_rng(seed))
        assert np.isfinite(out).all() and (np.diff(out.ravel()) > 0).all()
        shifts.append(out[0, 0, 0])
    assert np.std(shifts) > 0.05


def test_scale_widens_the_range_of_sizes(reader: ImageReader) -> None:
    for scale, smallest, largest in ((1.0, 32, 32), (2.0, 16, 64)):
        sides = {w.side for w in crops(reader, scale=scale).windows(3000, np.random.default_rng(0))}
        assert (min(sides), max(sides)) == (smallest, largest)
    assert crops(reader, scale=4.0).batch(8, np.random.default_rng(0)).shape == (8, 32, 32, 2)


def smooth_picture(side: int) -> np.ndarray:
    picture = np.random.default_rng(0).random((side, side, 2))
    return ndimage.gaussian_filter(picture, (2, 2, 0)).astype(np.float32)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_a_square_turned_by_right_angles_is_that_of_turned(turns: int, flip: bool) -> None:
    crop = smooth_picture(40)
    ours = rotated_square(crop, 24, centre=(20.5, 17.5), side=24, degrees=90 * turns, flip=flip)
    np.testing.assert_allclose(ours, turn(crop[9:33, 6:30], Window("", 0, 0, 24, turns, flip)), atol=1e-6)


@pytest.mark.parametrize("degrees", [17.0, 45.0, 200.0])
def test_a_square_turned_freely_agrees_with_scipy(degrees: float) -> None:
    crop = smooth_picture(65)
    expected = ndimage.rotate(crop, degrees, reshape=False, order=1)[17:48, 17:48]
    ours = rotated_square(crop, 31, centre=(32, 32), side=31, degrees=degrees)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_a_square_is_shrunk_and_enlarged_about_its_centre() -> None:
    """A plane of known slope shows where each pixel was taken from."""
    y, x = np.mgrid[:64, :64].astype(np.float32)
    plane = np.stack([y, x], axis=2)
    for side in (16.0, 20.5, 32.0, 48.0):
        part = rotated_square(plane, 24, centre=(30.0, 33.0), side=side)
        middle = (np.arange(24) - 11.5) * side / 24
        np.testing.assert_allclose(part[..., 0], np.broadcast_to((30 + middle)[:, None], (24, 24)), atol=0.6)
        np.testing.assert_allclose(part[..., 1], np.broadcast_to(33 + middle, (24, 24)), atol=0.6)


def test_blur_is_scipys() -> None:
    crop = np.random.default_rng(0).random((40, 40, 3)).astype(np.float32)
    expected = ndimage.gaussian_filter(crop, (1.2, 1.2, 0), mode="mirror")
    np.testing.assert_allclose(blurred(crop, 1.2), expected, atol=0.01)


def test_noise_grows_with_the_square_root_of_intensity() -> None:
    for intensity, factor in ((-0.3, 0.5), (0.0, 0.5), (0.5, 0.625**0.5), (1.0, 1.0)):
        crop = np.full((200, 200, 1), intensity, np.float32)
        rest = noisy(crop, 0.08, np.random.default_rng(0)) - crop
        assert rest.std() == pytest.approx(0.08 * factor, rel=0.03) and abs(rest.mean()) < 0.002


def test_augmented_pictures_differ_but_follow_from_the_generator() -> None:
    crop = smooth_picture(48)
    pictures = [augmented(crop, np.random.default_rng(seed)) for seed in range(24)]
    for seed, picture in enumerate(pictures):
        assert picture.shape == crop.shape and picture.dtype == np.float32 and np.isfinite(picture).all()
        np.testing.assert_array_equal(picture, augmented(crop, np.random.default_rng(seed)))
    rough = [np.abs(np.diff(p, axis=0)).mean() / p.std() for p in pictures]  # noise makes rougher
    assert max(rough) > 1.5 * min(rough)


def test_pca_pictures_agree_with_scikit_learn() -> None:
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(9, 12, 6)) * [9, 1, 5, 1, 3, 1], rng.normal(size=(5, 7, 6)) * [9, 1, 5, 1, 3, 1]]
    pictures = pca_rgb(maps)
    assert [p.shape for p in pictures] == [(9, 12, 3), (5, 7, 3)] and pictures[0].dtype == np.uint8
    scores = PCA(3).fit_transform(np.concatenate([m.reshape(-1, 6) for m in maps]))
    ours = np.concatenate([p.reshape(-1, 3) for p in pictures])
    for c in range(3):
        assert abs(np.corrcoef(scores[:, c], ours[:, c])[0, 1]) > 0.99
    for one, two in zip(pictures, pca_rgb(maps), strict=True):
        np.testing.assert_array_equal(one, two)
    assert pca_rgb([np.ones((3, 3, 2))])[0].shape == (3, 3, 3)
