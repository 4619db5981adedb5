"""Post-processing: the same as its steps one by one, in memory and on disk, and specks are dropped."""

import cv2
import numpy as np
import pytest
from real_labels import otsu, wheel_nuclei
from scipy import ndimage
from skimage.filters import threshold_otsu

from shared.artifacts.postprocessing import PostProcessing
from shared.imaging.grey import grey
from shared.instances.borders.border_contrast import border_weight
from shared.instances.borders.border_refinement import refine_border
from shared.instances.distance import instance_distance
from shared.instances.object_filters import drop_flat_objects, hysteresis
from shared.instances.postprocess import find_foreground, postprocess, threshold
from shared.instances.watershed import split_touching

IMAGE, TRUTH = wheel_nuclei()
PROBABILITY = np.clip(IMAGE / (2 * threshold_otsu(IMAGE)), 0, 1).astype(np.float32)
SETTINGS = PostProcessing(
    foreground_threshold=0.45,
    high_threshold=0.6,
    border_refinement="means",
    min_seed_distance_px=5,
    merge_threshold=0.85,
    min_area_px=40,
    min_area_share=0.1,
    min_distance_share=0.4,
)


def stepwise(settings: PostProcessing, distance: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Mask and labels of the wheel's image, by one function after another on whole arrays."""
    mask = (settings.foreground_threshold <= PROBABILITY).astype(np.uint8)
    mask = hysteresis(mask, PROBABILITY, settings.high_threshold)
    mask = refine_border(IMAGE[..., None], mask, settings.border_refinement)
    lowered = None if distance is None else distance * border_weight(grey(IMAGE[..., None]), mask)
    labels = split_touching(
        mask,
        min_seed_distance=settings.min_seed_distance_px,
        min_area=settings.min_area_px,
        merge_threshold=settings.merge_threshold,
        distance=lowered,
        min_area_share=settings.min_area_share,
    )
    if distance is not None:
        labels = drop_flat_objects(labels, distance, settings.min_distance_share)
    return mask, labels


@pytest.mark.parametrize("rows", [None, 100])
@pytest.mark.parametrize("in_memory", [True, False])
def test_foreground_and_distance_become_instances(in_memory, rows, tmp_path):
    distance = instance_distance(TRUTH)
    mask, labels = stepwise(SETTINGS, distance)
    maps = np.memmap(tmp_path / "maps", np.float32, "w+", shape=(2, *TRUTH.shape))
    maps[...] = PROBABILITY, distance
    found = postprocess(np.array(maps) if in_memory else maps, IMAGE[..., None], SETTINGS, rows)
    assert np.array_equal(found.mask, mask) and int(labels.max()) > 50
    assert (found.labels != labels).mean() < 1e-3  # the weight is rounded otherwise


def test_foreground_alone_becomes_instances():
    mask, labels = stepwise(SETTINGS, None)
    found = postprocess(PROBABILITY[None].copy(), IMAGE[..., None], SETTINGS)
    assert np.array_equal(found.mask, mask) and np.array_equal(found.labels, labels)


def test_the_lowered_distance_takes_the_place_of_the_foreground_map():
    probability = otsu(IMAGE) * np.float32(0.9)
    maps = np.stack([probability, np.ones_like(probability)])
    found = find_foreground(maps, IMAGE[..., None], PostProcessing())
    assert np.array_equal(found.mask, otsu(IMAGE))
    assert np.shares_memory(found.distance, maps[0]) and (found.network_distance == 1).all()
    np.testing.assert_allclose(found.distance, border_weight(grey(IMAGE[..., None]), found.mask), atol=1e-6)
    alone = find_foreground(probability[None].copy(), IMAGE[..., None], PostProcessing())
    assert alone.distance is None and alone.network_distance is None


def test_specks_in_the_noise_are_not_cells():
    """Beside real nuclei: specks of low probability, of low distance, or of both are dropped."""
    true = TRUTH[:256, :256]
    probability = np.where(true > 0, np.float32(0.97), np.float32(0.03))
    distance = instance_distance(true)
    background = ndimage.distance_transform_edt(true == 0) > 8
    y, x = (at[0] for at in np.nonzero(background & (np.indices(true.shape).min(axis=0) > 8)))
    speck = np.s_[y - 3 : y + 3, x - 3 : x + 3]
    image = np.zeros((*true.shape, 1), np.float32)

    def found(high_threshold: float, peak_probability: float, peak_distance: float) -> bool:
        maps = np.stack([probability, distance])
        maps[0][speck], maps[1][speck] = peak_probability, peak_distance
        settings = PostProcessing(high_threshold=high_threshold, merge_threshold=0.8, min_area_share=0)
        labels = postprocess(maps, image, settings).labels
        assert len(np.unique(labels)) > 10
        return bool(labels[speck].any())

    assert found(0.9, 0.95, 0.8) and found(0.0, 0.6, 0.8)
    assert not found(0.9, 0.6, 0.8) and not found(0.9, 0.95, 0.3) and not found(0.0, 0.6, 0.3)


def test_a_memory_map_is_thresholded_as_an_array(tmp_path):
    probability = PROBABILITY
    on_disk = np.memmap(tmp_path / "p", np.float32, "w+", shape=probability.shape)
    on_disk[...] = probability
    for rows in (1, 100, 512, 4096):
        assert np.array_equal(threshold(on_disk, 0.5, rows), probability >= 0.5)


def stained_rings() -> tuple[np.ndarray, np.ndarray]:
    """Cells with pale centres, two of which touch: image (H, W, 1) uint8, and the rings that a network finds."""
    y, x = np.mgrid[:160, :220]
    at = ((50, 50), (50, 106), (110, 150))
    distance = np.min([np.hypot(y - row, x - column) for row, column in at], axis=0)
    image = np.where(distance < 15, 160, np.where(distance < 28, 90, 220)) + np.random.default_rng(0).integers(
        0, 9, y.shape
    )
    return image[..., None].astype(np.uint8), (abs(distance - 21.5) < 6.5).astype(np.float32)


@pytest.mark.parametrize("rows", [None, 50])
def test_pale_centres_are_filled_where_the_model_asks_for_it(rows):
    image, ring = stained_rings()
    maps = np.stack([ring, np.where((np.indices(ring.shape)[0] // 9) % 2, 0.9, 0.3) * ring]).astype(np.float32)
    settings = PostProcessing(merge_threshold=0.85)
    plain = postprocess(maps.copy(), image, settings, rows)
    assert plain.labels.max() > 3 and plain.labels[50, 50] == 0
    filled = postprocess(maps.copy(), image, settings.model_copy(update={"pale_centres": "fill"}), rows)
    assert filled.labels.max() == 3 and filled.mask[50, 50] == 1
    assert len({filled.labels[50, 50], filled.labels[50, 106], filled.labels[110, 150]}) == 3
    alone = postprocess(maps[:1].copy(), image, settings.model_copy(update={"pale_centres": "fill"}), rows)
    assert np.array_equal(alone.mask, filled.mask)
    assert np.array_equal(plain.mask > 0, ring > 0), "and only there"


def test_a_group_with_a_small_gap_is_split_as_before():
    """A gap between objects looks like a pale centre, but is small for the group."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:200, :200]
    rods = (x % 20 < 18) & (y > 9) & (y < 190)
    rods &= ~((abs(y - 60) < 6) & (abs(x - 99) < 6))
    rods[10:20] = True  # one group
    image = (np.where(rods, 90, 220) + rng.integers(0, 9, y.shape)).astype(np.uint8)
    image[(abs(y - 60) < 6) & (abs(x - 99) < 6)] = 170
    maps = np.stack([rods, rods * (0.2 + 0.8 * (x % 20 < 16))]).astype(np.float32)
    maps[:, 10:190, ::20] = 1  # the rods touch
    settings = PostProcessing(pale_centres="fill")
    left, filled = (find_foreground(maps.copy(), image[..., None], one) for one in (PostProcessing(), settings))
    gap = (filled.mask > 0) & (left.mask == 0)
    elsewhere = ~cv2.dilate(gap.view(np.uint8), np.ones((15, 15), np.uint8)).astype(bool)
    np.testing.assert_allclose(filled.distance[elsewhere], left.distance[elsewhere], atol=0.05)
    assert (left.distance[elsewhere] < 0.5).any()
