"""Augment crops: rotation, flips, intensity, blur, noise."""

import cv2
import numpy as np

from shared.imaging.resize import resize


def jitter_intensity(crop: np.ndarray, rng: np.random.Generator, strength: float = 0.3) -> np.ndarray:
    """Change contrast, brightness and gamma at random, alike for all channels; values below 0 keep their sign.

    crop: (S, S, C) float32, normalised. With strength 0.3 contrast and gamma are within about 1/1.35 to 1.35, and the
    shift is up to 0.1.
    """
    gamma, contrast = np.exp(rng.uniform(-strength, strength, 2))
    shift = rng.uniform(-strength, strength) / 3
    return (np.sign(crop) * np.abs(crop) ** gamma * contrast + shift).astype(np.float32)


def rotate_square(
    crop: np.ndarray, size: int, *, centre: tuple[float, float], side: float, degrees: float = 0.0, flip: bool = False
) -> np.ndarray:
    """Cut a rotated square of `side` px around `centre` (y, x) from a crop (S, S, C): (size, size, C) float32.

    degrees: counter-clockwise, as np.rot90; flip: mirror left to right after the rotation. Beyond its border the crop
    is reflected. It is resampled once, bilinearly; where the result is smaller, it is area-averaged before.
    """
    if side > size:
        small = max(1, round(len(crop) * size / side))
        ratio = small / len(crop)
        crop, side = resize(crop, (small, small)), side * ratio
        centre = (centre[0] + 0.5) * ratio - 0.5, (centre[1] + 0.5) * ratio - 0.5
    matrix = np.asarray(cv2.getRotationMatrix2D((centre[1], centre[0]), degrees, size / side), np.float64)
    matrix[:, 2] += (size - 1) / 2 - np.array(centre[::-1])
    if flip:
        matrix[0] = [0, 0, size - 1] - matrix[0]
    planes = [
        cv2.warpAffine(
            np.ascontiguousarray(crop[..., c]),
            matrix,
            (size, size),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT,
        )
        for c in range(crop.shape[2])
    ]
    return np.stack(planes, axis=2)


def blur(crop: np.ndarray, sigma: float) -> np.ndarray:
    """Convolve every channel of a crop (S, S, C) float32 with a Gaussian of `sigma` px."""
    planes = [cv2.GaussianBlur(np.ascontiguousarray(crop[..., c]), (0, 0), sigma) for c in range(crop.shape[2])]
    return np.stack(planes, axis=2)


def add_noise(crop: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Add detector noise, and photon noise whose variance grows with intensity (Foi et al. 2008, eq. 1 and 3).

    crop: (S, S, C) float32, normalised; level: standard deviation at intensity 1, of which detector noise alone is
    half.
    """
    deviation = level * np.sqrt(0.25 + 0.75 * crop.clip(0, 1))
    return crop + deviation * rng.standard_normal(crop.shape, np.float32)


def degrade(
    crop: np.ndarray, rng: np.random.Generator, *, max_sigma: float = 1.5, max_noise: float = 0.1
) -> np.ndarray:
    """Blur half of the crops, and add noise to half of them, independently.

    crop: (S, S, C) float32, normalised; max_sigma: px; max_noise: largest level, see `add_noise`.
    """
    blurs, adds_noise, sigma, level = rng.random(4)
    if blurs < 0.5:
        crop = blur(crop, 0.3 + (max_sigma - 0.3) * sigma)
    if adds_noise < 0.5:
        crop = add_noise(crop, max_noise * level, rng)
    return crop.astype(np.float32, copy=False)


def augment_intensity(
    crop: np.ndarray, rng: np.random.Generator, *, max_sigma: float = 1.5, max_noise: float = 0.1
) -> np.ndarray:
    """Change the intensities of a crop (S, S, C) float32 by `jitter_intensity`, then `degrade` it."""
    return degrade(jitter_intensity(crop, rng), rng, max_sigma=max_sigma, max_noise=max_noise)
