"""Boxes: intersection, suppression against torchvision, and merging what overlapping tiles show."""

import numpy as np
import pytest
import torch
import torchvision

from shared.instances.detections import Detections, box_iou, suppress_duplicates
from shared.instances.tile_merging import concatenate, merge_tiles


def detections(*rows: tuple[float, float, float, float], scores: object = 0.9, classes: object = 0) -> Detections:
    """Rows are x0, y0, x1, y1."""
    boxes = np.array(rows, np.float32).reshape(-1, 4)
    full = np.broadcast_to(np.asarray(scores, np.float32), len(boxes)), np.broadcast_to(classes, len(boxes))
    return Detections(boxes, full[0].copy(), full[1].astype(np.int64))


def random_boxes(count: int) -> Detections:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 60, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 25, (count, 2))], axis=1).astype(np.float32)
    return Detections(boxes, rng.random(count).astype(np.float32), rng.integers(3, size=count))


@pytest.mark.parametrize("iou", [0.3, 0.6])
def test_suppression_is_torchvisions(iou: float) -> None:
    found = random_boxes(200)
    boxes, scores, classes = (torch.from_numpy(a) for a in (found.boxes, found.scores, found.classes))
    kept = torchvision.ops.batched_nms(boxes, scores, classes, iou).numpy()
    assert 0 < len(kept) < 200
    np.testing.assert_array_equal(suppress_duplicates(found, iou).boxes, found.boxes[kept])
    np.testing.assert_allclose(box_iou(found.boxes, found.boxes), torchvision.ops.box_iou(boxes, boxes), atol=1e-5)


def test_annotations_are_sorted_and_named() -> None:
    found = detections((1, 2, 4, 8), (0, 0, 2, 2), scores=[0.3, 0.8], classes=[1, 0])
    first, second = found.annotations(["cell", "debris"])
    assert (first.category, first.bbox, first.area) == ("cell", (0, 0, 2, 2), 4)
    assert (second.category, second.bbox, second.area) == ("debris", (1, 2, 3, 6), 18)
    assert second.score == pytest.approx(0.3)
    assert len(found.above(0.5)) == 1
    assert len(Detections.empty().annotations(["cell"])) == 0


LEFT, RIGHT = (0, 0, 100, 60), (70, 0, 170, 60)
SIZE = (60, 170)


def merged(left: Detections, right: Detections) -> Detections:
    return merge_tiles([LEFT, RIGHT], [left, right], SIZE, 0.6)


def test_an_object_whole_in_one_tile_is_that_box() -> None:
    """Whole in one and cut in the other, or whole in both."""
    cut, whole = detections((90, 10, 100, 30), scores=0.99), detections((90, 10, 112, 30), scores=0.5)
    found = merged(cut, whole)
    np.testing.assert_array_equal(found.boxes, whole.boxes)
    assert found.scores == [0.5], "the score of the box that stays"
    both = merged(detections((75, 10, 95, 30), scores=0.6), detections((76, 10, 95, 31), scores=0.7))
    np.testing.assert_array_equal(both.boxes, [[76, 10, 95, 31]])


def test_an_object_larger_than_the_overlap_is_united() -> None:
    found = merged(detections((20, 5, 100, 50), scores=0.6), detections((70, 5, 150, 49), scores=0.8))
    np.testing.assert_array_equal(found.boxes, [[20, 5, 150, 50]])
    assert found.scores == [np.float32(0.8)]


def test_neighbours_and_other_classes_stay() -> None:
    two = merged(detections((75, 10, 85, 30)), detections((86, 10, 96, 30)))
    assert len(two) == 2
    other = merged(detections((75, 10, 95, 30), classes=0), detections((75, 10, 95, 30), classes=1))
    assert sorted(other.classes) == [0, 1]


def test_overlapping_objects_of_one_tile_stay_two() -> None:
    """Both tiles show both, and each is closer to the other than `iou` allows."""
    pair = ((74, 10, 94, 30), (77, 10, 97, 30))
    assert box_iou(*(np.array([box], np.float32) for box in pair))[0, 0] > 0.6
    found = merged(detections(*pair), detections(*pair))
    assert sorted(map(tuple, found.boxes)) == [pair[0], pair[1]]


def test_a_part_at_the_edge_is_dropped_where_a_larger_box_covers_it() -> None:
    """A sliver of a cell whose box in the other tile agrees too little with it."""
    whole = detections((92, 10, 120, 40))
    assert len(merged(detections((95, 12, 100, 20)), whole)) == 1
    assert len(merged(detections((95, 45, 100, 55)), whole)) == 2, "nothing covers it"
    inside = merged(detections((80, 12, 86, 20)), detections((75, 5, 110, 40)))
    assert len(inside) == 2, "a small object on a large one, cut by no edge"


def test_boxes_are_clipped_and_empty_images_are_empty() -> None:
    found = merge_tiles([(0, 0, 64, 64)], [detections((-5, 10, 20, 70), (55, 10, 63, 20))], (60, 50), 0.6)
    np.testing.assert_array_equal(found.boxes, [[0, 10, 20, 60]])
    assert len(merge_tiles([LEFT, RIGHT], [Detections.empty()] * 2, SIZE, 0.6)) == 0
    assert len(concatenate([])) == 0
