"""The watershed in a band against scikit-image's on the whole image."""

import numpy as np
import pytest
from real_labels import otsu, wheel_nuclei
from scipy import ndimage
from skimage.segmentation import watershed

from shared.imaging.gradients import gradient
from shared.imaging.grey import grey
from shared.instances.borders.band_watershed import BACKGROUND, FOREGROUND, band_watershed

IMAGE, _ = wheel_nuclei()


@pytest.mark.parametrize("width", [2, 5])
def test_the_band_is_flooded_as_the_whole_image(width):
    """Of equal pixels the band's and the whole image's flood may take different ones first."""
    mask = otsu(IMAGE) > 0
    markers = np.zeros(mask.shape, np.int32)
    markers[ndimage.binary_erosion(mask, iterations=width)] = FOREGROUND
    markers[~ndimage.binary_dilation(mask, iterations=width)] = BACKGROUND
    levels = np.rint(512 * gradient(grey(IMAGE[..., None]))).astype(np.int32)
    found = band_watershed(levels, markers)
    assert found.dtype == np.uint8 and (found[markers > 0] == (markers[markers > 0] == FOREGROUND)).all()
    whole = watershed(levels, markers) == FOREGROUND
    assert (found != whole).sum() < 0.01 * (markers == 0).sum()
    assert (found != mask).sum() > 0.05 * (markers == 0).sum()


def test_the_border_is_on_the_ridge():
    levels = np.zeros((20, 30), np.int32)
    levels[:, 12] = 5
    markers = np.zeros(levels.shape, np.int32)
    markers[:, :3], markers[:, 25:] = BACKGROUND, FOREGROUND
    found = band_watershed(levels, markers)
    assert not found[:, :12].any() and found[:, 13:].all()
