"""Normalise intensities and match channels: from an image to the input of a network."""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.imaging.graphics import drawn_pixels


class Normalisation(BaseModel):
    """Normalisation of pixel values, stored in a model's config so that every later stage applies the same."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["percentile"] = "percentile"
    low: float = Field(default=1.0, ge=0, le=100)
    """Percentile of each channel that becomes 0."""
    high: float = Field(default=99.8, ge=0, le=100)
    """Percentile of each channel that becomes 1."""
    clip: tuple[float, float] = (-0.5, 1.5)
    """Range of the normalised values; outliers are clipped to it."""
    fixed: tuple[tuple[float, float], ...] = ()
    """Values of each channel that become 0 and 1 in every image. Empty: each image has its own percentiles."""

    @model_validator(mode="after")
    def _ordered(self) -> "Normalisation":
        if not (self.low < self.high and self.clip[0] <= 0 < 1 <= self.clip[1]):
            raise ValueError(f"low {self.low} must be below high {self.high}, clip {self.clip} must contain 0 and 1")
        if any(not low <= high for low, high in self.fixed):
            raise ValueError(f"fixed {self.fixed}: the first value of a channel must not be above the second")
        return self

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Normalise an image (H, W, C) of any dtype, each channel by its `limits`: float32 within `clip`.

        A constant channel, nan and minus infinity become 0; infinity becomes 1.
        """
        return self.apply(image, self.limits(image))

    def limits(self, image: np.ndarray) -> list[tuple[float, float]]:
        """Return the values of each channel of an image (H, W, C) that become 0 and 1; equal in a constant channel.

        Scale bars and text that are drawn into the image do not count.
        With `fixed`, a grey image that stands for colours has the mean of their limits, and colours that stand for a
        grey image have its limits.
        """
        channels, known = image.shape[2], len(self.fixed)
        if known == 1 or 1 < channels <= known:
            return [*self.fixed, *self.fixed[:1] * (channels - 1)][:channels]
        if known and channels == 1:
            return [(sum(low for low, _ in self.fixed) / known, sum(high for _, high in self.fixed) / known)]
        return [_limits(image[..., c], self.low, self.high) for c in range(image.shape[2])]

    def apply(self, image: np.ndarray, limits: list[tuple[float, float]]) -> np.ndarray:
        """Normalise an image or a part of it, (H, W, C) -> float32, by the `limits` of the whole image."""
        out = np.zeros(image.shape, np.float32)
        for c, (low, high) in enumerate(limits):
            if high > low:
                values = np.nan_to_num(image[..., c].astype(_precision(image)), nan=low, posinf=high, neginf=low)
                out[..., c] = np.clip((values - low) / (high - low), *self.clip)
        return out


def _precision(image: np.ndarray) -> type[np.floating]:
    """Type to compute in. An offset of float64 may exceed the contrast by more than float32 can tell apart."""
    return np.float64 if image.dtype == np.float64 else np.float32


def _limits(plane: np.ndarray, low_percentile: float, high_percentile: float) -> tuple[float, float]:
    step = max(1, int((plane.size / 250_000) ** 0.5))  # percentiles of about 250,000 evenly spaced pixels
    sample = plane[::step, ::step]
    drawn = drawn_pixels(sample)
    sample = (sample if drawn is None else sample[~drawn]).astype(_precision(plane))
    sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return 0.0, 0.0
    low, high = (float(value) for value in np.percentile(sample, [low_percentile, high_percentile]))
    return (low, high) if high > low else (float(sample.min()), float(sample.max()))


def match_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Image (H, W, C) -> (H, W, channels): repeat grey, average colour to grey, pad missing channels with zeros.

    Of more channels than wanted the first are kept; where one is wanted, it is the mean.
    """
    have = image.shape[2]
    if have == channels:
        return image
    if have == 1:
        return np.repeat(image, channels, axis=2)
    if channels == 1:
        return image.mean(axis=2, keepdims=True, dtype=np.float32)
    if have > channels:
        return np.ascontiguousarray(image[..., :channels])
    return np.pad(image, ((0, 0), (0, 0), (0, channels - have)))
