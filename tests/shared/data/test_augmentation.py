"""Augmented crops: against OpenCV, SciPy and NumPy, and the same for the same generator."""

import numpy as np
import pytest
from scipy import ndimage

from shared.data.augmentation import add_noise, augment_intensity, blur, jitter_intensity, rotate_square
from shared.data.crops import Window, orient


def test_intensity_jitter_keeps_the_order_of_intensities() -> None:
    ramp = np.linspace(-0.5, 1.5, 400, dtype=np.float32).reshape(20, 20, 1)
    shifts = []
    for seed in range(20):
        out = jitter_intensity(ramp, np.random.default_rng(seed))
        assert np.isfinite(out).all() and (np.diff(out.ravel()) > 0).all()
        shifts.append(out[0, 0, 0])
    assert np.std(shifts) > 0.05


def smooth_picture(side: int) -> np.ndarray:
    picture = np.random.default_rng(0).random((side, side, 2))
    return ndimage.gaussian_filter(picture, (2, 2, 0)).astype(np.float32)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("turns", range(4))
def test_a_square_rotated_by_right_angles_is_numpys(turns: int, flip: bool) -> None:
    crop = smooth_picture(40)
    ours = rotate_square(crop, 24, centre=(20.5, 17.5), side=24, degrees=90 * turns, flip=flip)
    np.testing.assert_allclose(ours, orient(crop[9:33, 6:30], Window("", 0, 0, 24, turns, flip)), atol=1e-6)


@pytest.mark.parametrize("degrees", [17.0, 45.0, 200.0])
def test_a_square_rotated_freely_agrees_with_scipy(degrees: float) -> None:
    crop = smooth_picture(65)
    expected = ndimage.rotate(crop, degrees, reshape=False, order=1)[17:48, 17:48]
    ours = rotate_square(crop, 31, centre=(32, 32), side=31, degrees=degrees)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_a_square_is_shrunk_and_enlarged_about_its_centre() -> None:
    """A plane of known slope shows where each pixel was taken from."""
    y, x = np.mgrid[:64, :64].astype(np.float32)
    plane = np.stack([y, x], axis=2)
    for side in (16.0, 20.5, 32.0, 48.0):
        part = rotate_square(plane, 24, centre=(30.0, 33.0), side=side)
        middle = (np.arange(24) - 11.5) * side / 24
        np.testing.assert_allclose(part[..., 0], np.broadcast_to((30 + middle)[:, None], (24, 24)), atol=0.6)
        np.testing.assert_allclose(part[..., 1], np.broadcast_to(33 + middle, (24, 24)), atol=0.6)


def test_blur_is_scipys() -> None:
    crop = np.random.default_rng(0).random((40, 40, 3)).astype(np.float32)
    expected = ndimage.gaussian_filter(crop, (1.2, 1.2, 0), mode="mirror")
    np.testing.assert_allclose(blur(crop, 1.2), expected, atol=0.01)


def test_noise_grows_with_the_square_root_of_intensity() -> None:
    for intensity, factor in ((-0.3, 0.5), (0.0, 0.5), (0.5, 0.625**0.5), (1.0, 1.0)):
        crop = np.full((200, 200, 1), intensity, np.float32)
        rest = add_noise(crop, 0.08, np.random.default_rng(0)) - crop
        assert rest.std() == pytest.approx(0.08 * factor, rel=0.03) and abs(rest.mean()) < 0.002


def test_augmented_pictures_differ_but_follow_from_the_generator() -> None:
    crop = smooth_picture(48)
    pictures = [augment_intensity(crop, np.random.default_rng(seed)) for seed in range(24)]
    for seed, picture in enumerate(pictures):
        assert picture.shape == crop.shape and picture.dtype == np.float32 and np.isfinite(picture).all()
        np.testing.assert_array_equal(picture, augment_intensity(crop, np.random.default_rng(seed)))
    rough = [np.abs(np.diff(p, axis=0)).mean() / p.std() for p in pictures]  # noise makes rougher
    assert max(rough) > 1.5 * min(rough)
