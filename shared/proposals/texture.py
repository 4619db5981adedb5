"""Threshold the texture of a set of images, in a window that suits the size of its cells.

The texture is the logarithm of the local standard deviation. A window that is not much smaller than the cells blurs
their borders and fills the gaps between them; a smaller one than necessary sees noise. Neither size nor noise is known.
What tells them is how many windows the objects measure across that are found with a window: of cells without noise 20
to 27, until the window is too wide for them; fewer where noise breaks the mask up.

Figures: RESULTS.md, "Constants".
"""

from collections.abc import Sequence

import numpy as np

from shared.imaging.filters import log_local_std
from shared.instances.distance import typical_diameter
from shared.proposals.otsu import OtsuThreshold, otsu

WINDOWS = (0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
"""px; standard deviations of the windows that are compared."""
_MIN_WINDOWS_ACROSS, _NEARLY_MOST = 20.0, 0.9
"""The widest window is taken that the objects measure so often across, or nearly as often as they measure any."""
_SAMPLE_PX = 40_000
"""Pixels of each image that thresholds are fitted to, about."""
_MEASURED_SIDE = 512
"""px; of larger images the middle is measured."""


class TextureThreshold(OtsuThreshold):
    """Threshold between textured and plain, and the window of the texture."""

    window: float
    """px; standard deviation of the window."""


class TextureSample:
    """Texture of an image in every window."""

    def __init__(self, plane: np.ndarray) -> None:
        """plane: (H, W) float32, grey."""
        step = max(1, int((plane.size / _SAMPLE_PX) ** 0.5))
        top, left = (max(0, (length - _MEASURED_SIDE) // 2) for length in plane.shape)
        self.values: list[np.ndarray] = []
        """(n,) float32 for each window, of evenly spread pixels."""
        self.windows_across: list[float] = []
        """Diameter of the objects that each window finds, in windows; 0 where it finds none."""
        for window in WINDOWS:
            texture = log_local_std(plane, window)
            values = texture[::step, ::step].ravel()
            middle = texture[top : top + _MEASURED_SIDE, left : left + _MEASURED_SIDE]
            found = typical_diameter((middle > otsu(values).threshold).astype(np.uint8))
            self.values.append(values)
            self.windows_across.append((found or 0.0) / window)


def fit_texture(samples: Sequence[TextureSample]) -> TextureThreshold:
    """Choose the window for some images of a set, and threshold their texture; of no images, an undecided one."""
    if not samples:
        return TextureThreshold(**otsu(np.empty(0)).model_dump(), window=WINDOWS[-1])
    across = np.median([sample.windows_across for sample in samples], axis=0)
    wide_enough = np.flatnonzero(across >= min(_MIN_WINDOWS_ACROSS, _NEARLY_MOST * across.max()))
    chosen = int(wide_enough[-1])
    threshold = otsu(np.concatenate([sample.values[chosen] for sample in samples]))
    return TextureThreshold(**threshold.model_dump(), window=WINDOWS[chosen])
