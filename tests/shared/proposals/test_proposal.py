"""Proposals: better than Otsu's threshold with a watershed, as scikit-image has them, on every kind of nuclei."""

import numpy as np
import pytest
from real_labels import real_pairs
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import label
from skimage.segmentation import watershed

from shared.instances.watershed import split_touching
from shared.metrics.tally import Tally, tally
from shared.proposals.local_threshold import local_probability
from shared.proposals.proposal_selection import ProposalSelection


def classical(image: np.ndarray, dark: bool) -> np.ndarray:
    """Otsu's threshold and the watershed of the smoothed distance, label image (H, W)."""
    plane = gaussian(image[..., :3].mean(axis=-1), 1)
    threshold = threshold_otsu(plane)
    mask = plane < threshold if dark else plane > threshold
    distance = gaussian(ndimage.distance_transform_edt(mask), 1)
    peaks = np.zeros(mask.shape, bool)
    peaks[tuple(peak_local_max(distance, min_distance=4, labels=label(mask)).T)] = True
    return watershed(-distance, label(peaks), mask=mask)


@pytest.mark.parametrize(
    ("folder", "count", "dark"),
    [("dsb2018/fluo", 40, False), ("dsb2018/histo_purple", 20, True), ("dsb2018/histo_light", 19, True)],
)
def test_better_than_a_threshold_and_a_watershed(folder, count, dark):
    pairs = real_pairs(folder, count)
    images = [image if image.ndim == 3 else image[..., None] for image, _ in pairs]
    choice = ProposalSelection.among(images)
    ours, theirs = Tally(), Tally()
    for image, (_, truth) in zip(images, pairs, strict=True):
        ours += tally(truth, split_touching((choice.probability(image) >= 0.5).astype(np.uint8)))
        theirs += tally(truth, classical(image, dark))
    ours, theirs = ours.metrics(), theirs.metrics()
    assert ours["f1"] > theirs["f1"] + 0.03
    assert ours["dice"] > theirs["dice"]


def test_every_object_is_cut_at_half_its_own_height():
    """Of blurred discs the bright come out too large where one level has to find the dim ones as well."""
    y, x = np.indices((160, 160))
    plane = np.zeros((160, 160), np.float32)
    centres = {(40, 40): 1.0, (40, 120): 0.3, (120, 40): 0.3, (120, 120): 1.0}
    for (cy, cx), height in centres.items():
        plane += height * (np.hypot(y - cy, x - cx) <= 12)
    plane = gaussian(plane, 3).astype(np.float32)
    level, area = 0.1, np.pi * 12**2
    found = local_probability(plane, level, 0.5) >= 0.5
    for (cy, cx), height in centres.items():
        near = np.hypot(y - cy, x - cx) < 35
        assert abs((found & near).sum() / area - 1) < 0.08
        if height == 1:
            assert ((plane > level) & near).sum() / area > 1.4


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_plane_of_one_value_stays_undecided(value):
    assert (local_probability(np.full((20, 30), value, np.float32), 0.5, 0.5) < 0.5).all()
