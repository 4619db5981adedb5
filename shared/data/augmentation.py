"""Augment crops: flips, rotation, scale, intensity, blur, noise."""

import cv2
import numpy as np

from shared.data.crops import resized


def jitter_intensity(crop: np.ndarray, rng: np.random.Generator, strength: float = 0.3) -> np.ndarray:
    """Random contrast, brightness and gamma, the same for all channels; values below 0 keep their sign.

    crop: (S, S, C) float32, normalised. strength 0.3: contrast and gamma within about 1/1.35 to 1.35, shift up to 0.1.
    """
    gamma, contrast = np.exp(rng.uniform(-strength, strength, 2))
    shift = rng.uniform(-strength, strength) / 3
    return (np.sign(crop) * np.abs(crop) ** gamma * contrast + shift).astype(np.float32)


def rotated_square(
    crop: np.ndarray, size: int, *, centre: tuple[float, float], side: float, degrees: float = 0.0, flip: bool = False
) -> np.ndarray:
    """The square of `side` px about `centre` (y, x) of a crop (S, S, C), turned: (size, size, C) float32.

    degrees: counter-clockwise, as np.rot90; flip: mirrored left to right after turning. Outside, the crop goes on
    reflected. Resampled once, bilinear; where it is made smaller, by area before.
    """
    if side > size:
        small = max(1, round(len(crop) * size / side))
        ratio = small / len(crop)
        crop, side = resized(crop, small), side * ratio
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


def blurred(crop: np.ndarray, sigma: float) -> np.ndarray:
    """Out of focus: a Gaussian of `sigma` px over every channel of (S, S, C) float32."""
    planes = [cv2.GaussianBlur(np.ascontiguousarray(crop[..., c]), (0, 0), sigma) for c in range(crop.shape[2])]
    return np.stack(planes, axis=2)


def noisy(crop: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of the detector, and of the photons, whose variance grows with intensity (Foi et al. 2008, eq. 1 and 3).

    crop: (S, S, C) float32, normalised; level: standard deviation where the intensity is 1, of the detector alone half
    of it.
    """
    deviation = level * np.sqrt(0.25 + 0.75 * crop.clip(0, 1))
    return crop + deviation * rng.standard_normal(crop.shape, np.float32)


def augmented(crop: np.ndarray, rng: np.random.Generator, *, blur: float = 1.5, noise: float = 0.1) -> np.ndarray:
    """Another picture of the same place: other intensities, and `degraded`.

    crop: (S, S, C) float32, normalised.
    """
    return degraded(jitter_intensity(crop, rng), rng, blur=blur, noise=noise)


def degraded(crop: np.ndarray, rng: np.random.Generator, *, blur: float = 1.5, noise: float = 0.1) -> np.ndarray:
    """A worse picture of the same: in half of the cases out of focus, in half of them noisy.

    crop: (S, S, C) float32, normalised; blur: largest sigma, px; noise: largest level, see `noisy`.
    """
    out_of_focus, grainy, sigma, level = rng.random(4)
    if out_of_focus < 0.5:
        crop = blurred(crop, 0.3 + (blur - 0.3) * sigma)
    if grainy < 0.5:
        crop = noisy(crop, noise * level, rng)
    return crop.astype(np.float32, copy=False)
