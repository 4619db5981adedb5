"""Distance maps against scipy's, and whatever the position in memory."""

import cv2
import numpy as np
import pytest
from real_labels import wheel_nuclei
from scipy import ndimage

from shared.instances.distance import MAX_DISTANCE, edge_distance, instance_distance, separate_instances

_, TRUTH = wheel_nuclei()


def placed(plane: np.ndarray, offset: int) -> np.ndarray:
    """A copy that begins `offset` bytes after a multiple of 64."""
    memory = np.empty(plane.nbytes + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    copy = memory[start : start + plane.nbytes].view(plane.dtype).reshape(plane.shape)
    copy[...] = plane
    return copy


@pytest.fixture
def one_thread():
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


@pytest.mark.usefixtures("one_thread")
def test_distances_do_not_depend_on_the_position_in_memory(monkeypatch):
    """OpenCV's own differ in the last bit, with one thread; scipy's are exact."""
    mask = separate_instances(TRUTH)
    exact = ndimage.distance_transform_edt(mask).astype(np.float32)
    distance = instance_distance(TRUTH)
    transform = cv2.distanceTransform
    differ = 0
    for offset in range(0, 64, 4):

        def at_offset(source: np.ndarray, *how: int, offset: int = offset) -> np.ndarray:
            return transform(source, *how, placed(np.zeros(source.shape, np.float32), offset))

        differ += not np.array_equal(at_offset(mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), exact)
        monkeypatch.setattr(cv2, "distanceTransform", at_offset)
        assert np.array_equal(edge_distance(mask), exact)
        assert np.array_equal(instance_distance(TRUTH), distance)
        monkeypatch.undo()
    if not differ:
        pytest.skip("this OpenCV's distances are exact: nothing to correct")


def test_a_full_mask_has_the_maximal_distance():
    assert (edge_distance(np.ones((30, 40), np.uint8)) == np.float32(MAX_DISTANCE)).all()


def test_touching_instances_are_separated_and_others_unchanged():
    labels = np.zeros((8, 12), np.uint16)
    labels[2:6, 1:5], labels[2:6, 5:8], labels[3:5, 9:11] = 1, 2, 3
    mask = separate_instances(labels)
    assert (mask[2:6, 4:6] == 0).all()
    assert (mask[2:6, 1:4] == 1).all() and (mask[2:6, 6:8] == 1).all() and (mask[3:5, 9:11] == 1).all()
    assert mask.sum() == 12 + 8 + 4
    assert (separate_instances((labels > 0).astype(np.uint8)) == (labels > 0)).all()


def test_instance_distance_is_scipys_within_each_object():
    found = instance_distance(TRUTH)
    assert found.dtype == np.float32 and (found[TRUTH == 0] == 0).all()
    apart = separate_instances(TRUTH)
    for number in np.unique(TRUTH)[1::10]:
        inside = np.pad((number == TRUTH) & (apart > 0), 1, mode="edge")
        distance = ndimage.distance_transform_edt(inside)[1:-1, 1:-1]
        np.testing.assert_allclose(found[number == TRUTH], (distance / distance.max())[number == TRUTH], atol=0.02)
