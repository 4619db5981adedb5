"""Typical diameter: of discs it is known; on real nuclei and cells it is near that of the true instances."""

import numpy as np
import pytest
from real_labels import real_pairs

from shared.instances.distance import typical_diameter


def discs(*centres_and_radii: tuple[float, float, float]) -> np.ndarray:
    y, x = np.indices((200, 200))
    inside = [np.hypot(y - cy, x - cx) <= radius for cy, cx, radius in centres_and_radii]
    return np.logical_or.reduce(inside).astype(np.uint8)


@pytest.mark.parametrize("radius", [10, 20, 40])
def test_a_disc_has_its_diameter(radius):
    assert typical_diameter(discs((100, 100, radius))) == pytest.approx(2 * radius, rel=0.1)


def test_touching_discs_count_as_two_and_specks_hardly_count():
    alone = typical_diameter(discs((100, 60, 30)))
    assert typical_diameter(discs((100, 60, 30), (100, 119, 30))) == pytest.approx(alone, rel=0.05)
    specks = discs((100, 60, 30))
    specks[::12, 110::12] = 1
    assert typical_diameter(specks) == pytest.approx(alone, rel=0.15)


@pytest.mark.parametrize("value", [0, 1])
def test_a_mask_of_one_value_has_no_objects(value):
    assert typical_diameter(np.full((20, 30), value, np.uint8)) is None


@pytest.mark.parametrize(
    ("folder", "low", "high"), [("usiigaci/labelled", 46, 92), ("dsb2018/fluo", 0, 46), ("dsb2018/histo_light", 0, 46)]
)
def test_phase_contrast_cells_are_larger_than_nuclei(folder, low, high):
    """Of true masks; 46 px is the limit from which `pretrain` halves the images."""
    sizes = [typical_diameter((truth > 0).astype(np.uint8)) for _, truth in real_pairs(folder, 24)]
    assert low < np.median([size for size in sizes if size is not None]) < high
