"""Proposals: better than scikit-image's Otsu threshold and watershed on every kind of nuclei."""

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
    selection = ProposalSelection.fit(images)
    ours, theirs = Tally(), Tally()
    for image, (_, truth) in zip(images, pairs, strict=True):
        ours += tally(truth, split_touching((selection.probability(image) >= 0.5).astype(np.uint8)))
        theirs += tally(truth, classical(image, dark))
    ours, theirs = ours.metrics(), theirs.metrics()
    assert ours["f1"] > theirs["f1"] + 0.03
    assert ours["dice"] > theirs["dice"]
