"""Parting a distance map by two thresholds, against scikit-image on the whole image."""

import numpy as np
import pytest
from mask_chain import mean_iou
from real_labels import wheel_nuclei
from skimage.measure import label
from skimage.segmentation import watershed

from shared.instances.distance import instance_distance
from shared.instances.label_image import relabel
from shared.instances.seeded_watershed import seeded_watershed


@pytest.fixture(scope="module")
def distance() -> np.ndarray:
    """Distance map (256, 256) of real nuclei, disturbed."""
    labels = relabel(wheel_nuclei()[1][:256, :256])
    noise = np.random.default_rng(0).standard_normal(labels.shape)
    return (instance_distance(labels) + 0.05 * noise * (labels > 0)).clip(0, 1).astype(np.float32)


@pytest.mark.parametrize(("seed", "fill"), [(0.47, 0.09), (0.7, 0.02), (0.3, 0.2)])
def test_the_instances_are_those_of_scikit_image(distance: np.ndarray, seed: float, fill: float) -> None:
    mask = (distance >= fill).astype(np.uint8)
    wanted = watershed(-distance, label(distance >= seed, connectivity=1), mask=mask > 0)
    iou, count, found = mean_iou(wanted, seeded_watershed(distance, mask, seed))
    assert iou > 0.999 and count == found > 20


def test_every_seed_is_an_instance_and_what_has_none_is_dropped() -> None:
    distance = np.zeros((8, 40), np.float32)
    distance[1:7, 1:14] = 0.2
    distance[2:6, 3:5] = distance[2:6, 9:12] = 0.9  # two seeds in one component
    distance[1:7, 16:22], distance[3, 18] = 0.2, 0.6  # one seed
    distance[1:7, 25:30] = 0.3  # none
    labels = seeded_watershed(distance, (distance >= 0.1).astype(np.uint8), 0.5)
    assert labels.dtype == np.int32 and sorted(np.unique(labels)) == [0, 1, 2, 3]
    assert (labels[1:7, 1:14] > 0).all() and labels[3, 3] != labels[3, 10]
    assert len(np.unique(labels[1:7, 16:22])) == 1 and not labels[:, 24:].any()


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_an_even_map(value: float) -> None:
    plane = np.full((6, 7), value, np.float32)
    labels = seeded_watershed(plane, (plane >= 0.09).astype(np.uint8), 0.47)
    assert (labels == (value >= 0.47)).all()
