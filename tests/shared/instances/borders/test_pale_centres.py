"""Pale centres of cells are found, gaps between cells are not."""

import cv2
import imagecodecs
import numpy as np
import pytest
from real_boxes import bccd_boxes
from real_labels import real_data

from shared.imaging import row_strips
from shared.instances.borders.pale_centres import gaps, pale_centres, pale_centres_of_image
from shared.instances.watershed import split_touching
from shared.proposals import proposal
from shared.proposals.proposal_selection import ProposalSelection

SIZE = (200, 260)


def rings(level: float, inner: int = 14) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mask, plane and centres of dark cells; the centres have a level between the cells' and the background's."""
    mask, centres = np.zeros(SIZE, np.uint8), np.zeros(SIZE, np.uint8)
    for at in ((60, 60), (130, 60), (200, 130)):
        cv2.circle(mask, at, 30, 1, -1)
        cv2.circle(centres, at, inner, 1, -1)
    plane = np.where(mask > 0, 0.3, 0.8).astype(np.float32)
    plane[centres > 0] = 0.3 + 0.5 * level
    return mask - centres, plane, centres > 0


@pytest.mark.parametrize(("level", "found"), [(0.3, True), (0.8, True), (1.3, False), (-0.5, True)])
@pytest.mark.parametrize("inverted", [False, True])
def test_a_hole_between_object_and_background_is_a_centre(level, found, inverted):
    mask, plane, centres = rings(level)
    shown = 1 - plane if inverted else plane
    assert np.array_equal(pale_centres(mask, shown), centres & found)
    assert np.array_equal(gaps(mask, shown), centres & (not found)), "else it is a gap"


@pytest.mark.parametrize(("level", "found"), [(0.8, True), (1.3, True), (1.8, False)])
def test_the_hole_of_a_ring_by_itself_may_have_any_shape(level, found):
    """In a model's mask; a first proposal's ring may be a halo."""
    mask, plane, centres = rings(level)
    for x, y in ((60, 60), (130, 60), (200, 130)):
        mask[y - 4 : y + 5, x : x + 20] = 1  # the hole is a C
    holes = (mask == 0) & centres
    image = np.rint(plane * 100).astype(np.uint8)[..., None]
    assert np.array_equal(pale_centres_of_image(mask, image), holes & found)
    assert not pale_centres(mask, plane).any()


def test_strips_of_rows_give_the_same_centres(monkeypatch):
    mask, plane, centres = rings(0.5)
    image = np.rint(plane * 200).astype(np.uint8)[..., None].repeat(3, axis=2)
    for rows in (7, 64, 512):
        monkeypatch.setattr(row_strips, "ROWS", rows)
        assert np.array_equal(pale_centres_of_image(mask, image), centres)


def test_a_filled_ring_is_one_object_and_an_open_one_is_cut():
    mask, plane, _ = rings(0.7, inner=18)
    mask[55:64, 24:96] = mask[55:64, 24:96] & (np.arange(72) % 3 > 0)  # an uneven rim
    whole = mask | pale_centres(mask, plane)
    assert split_touching(whole).max() == 3 <= split_touching(mask).max()


def test_gaps_that_cells_bulge_into_and_wide_ones_are_no_centres():
    mask = np.zeros(SIZE, np.uint8)
    for at in ((60, 60), (120, 60), (60, 120), (120, 120)):
        cv2.circle(mask, at, 31, 1, -1)
    plane = np.where(mask > 0, 0.3, 0.8).astype(np.float32)
    plane[80:100, 80:100] = np.where(mask[80:100, 80:100] > 0, 0.3, 0.7)
    assert not pale_centres(mask, plane).any()
    frame = np.ones(SIZE, np.uint8)
    frame[:10], frame[30:170, 40:220] = 0, 0
    assert not pale_centres(frame, np.where(frame > 0, 0.3, 0.7).astype(np.float32)).any()


def test_masks_without_holes_and_without_objects():
    mask, plane, _ = rings(0.5)
    for one in (0 * mask, np.ones_like(mask), (mask > 0) & (np.indices(SIZE)[1] < 40)):
        assert not pale_centres(one.astype(np.uint8), plane).any()


def test_more_red_blood_cells_are_found_once(monkeypatch):
    """The share of the boxes that hold the centroid of exactly one object."""
    boxes = bccd_boxes("val", 12)
    images = {key: imagecodecs.imread(str(real_data() / f"bccd/val/{key}.jpg")) for key in boxes}
    selection = ProposalSelection.fit(images.values())

    def found_once() -> float:
        once = []
        for key, image in images.items():
            labels = split_touching((selection.probability(image) >= 0.5).astype(np.uint8))
            stats = [np.argwhere(labels == number).mean(axis=0) for number in range(1, int(labels.max()) + 1)]
            for x, y, width, height in (one.bbox for one in boxes[key] if one.category == "RBC"):
                inside = [y <= row <= y + height and x <= column <= x + width for row, column in stats]
                once.append(sum(inside) == 1)
        return float(np.mean(once))

    filled = found_once()
    monkeypatch.setattr(proposal, "pale_centres", lambda mask, plane: np.zeros(mask.shape, bool))
    assert filled > found_once() + 0.08
