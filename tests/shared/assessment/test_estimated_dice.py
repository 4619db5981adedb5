"""The estimate of Dice: it ranks masks of real cells, right and wrong ones, as their labels do."""

import cv2
import numpy as np
import pytest
from real_labels import real_pairs
from scipy.stats import spearmanr

from shared.assessment.estimated_dice import MIN_TRUSTED, estimate_dice
from shared.assessment.mask_statistics import separability, solidity, straight_share, surroundings
from shared.imaging.filters import smooth
from shared.imaging.grey import grey
from shared.instances.watershed import split_touching
from shared.metrics.pixels import dice_masks
from shared.proposals.proposal import Proposal
from shared.proposals.proposal_selection import ProposalSelection

FOLDERS = ("dsb2018/fluo", "dsb2018/histo_light", "dsb2018/histo_purple", "usiigaci/labelled")


def with_channels(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 3 else image[..., None]


def candidates(image: np.ndarray, labels: np.ndarray, selection: ProposalSelection) -> list[np.ndarray]:
    """Masks of an image: the selected proposal, the wrong side, texture, everything, and the label, grown."""
    found = selection.probability(image) >= 0.5
    texture = selection.candidates()[-1].probability(image) >= 0.5
    grown = cv2.dilate((labels > 0).astype(np.uint8), np.ones((9, 9), np.uint8))
    everything = np.ones(found.shape, np.uint8)
    everything[:3] = 0
    side = Proposal(kind="intensity", separability=1.0, foreground_is_bright=smooth(grey(image))[found].mean() < 0.5)
    wrong = side.probability(image) >= 0.5
    return [mask.astype(np.uint8) for mask in (found, wrong, texture, everything, grown)]


def test_the_estimate_ranks_masks_as_their_labels_do():
    estimates, truths = [], []
    for folder in FOLDERS:
        pairs = [(with_channels(image[:512, :512]), labels[:512, :512]) for image, labels in real_pairs(folder, 5)]
        selection = ProposalSelection.fit(image for image, _ in pairs)
        for image, labels in pairs:
            for mask in candidates(image, labels, selection):
                estimates.append(estimate_dice(image, split_touching(mask)) or 0.0)
                truths.append(dice_masks(mask, labels > 0))
    assert spearmanr(estimates, truths).statistic > 0.7
    failed, good = (np.array(estimates)[chosen] for chosen in (np.array(truths) < 0.35, np.array(truths) > 0.8))
    assert np.median(failed) < MIN_TRUSTED < np.median(good)


def test_nothing_and_everything():
    image = with_channels(real_pairs("dsb2018/fluo", 1)[0][0])
    assert estimate_dice(image, np.zeros(image.shape[:2], np.uint16)) is None
    assert estimate_dice(image, np.ones(image.shape[:2], np.uint16)) < MIN_TRUSTED


def test_of_a_large_image_the_part_with_most_foreground_is_assessed():
    image, labels = real_pairs("dsb2018/fluo", 1)[0]
    canvas, cells = np.zeros((1500, 2600), image.dtype), np.zeros((1500, 2600), np.uint16)
    height, width = image.shape[:2]
    canvas[1200 : 1200 + height, 2000 : 2000 + width] = image[:300]
    cells[1200 : 1200 + height, 2000 : 2000 + width] = labels[:300]
    assert estimate_dice(canvas[..., None], cells) > MIN_TRUSTED


def test_solidity_and_straight_borders():
    disc = np.zeros((200, 200), np.uint8)
    cv2.circle(disc, (60, 60), 30, 1, -1)
    square = np.zeros((200, 200), np.uint8)
    square[20:90, 30:110] = 1
    cross = np.zeros((200, 200), np.uint8)
    cross[90:110, 20:180] = cross[20:180, 90:110] = 1
    assert solidity(disc, 1) > 0.95 and solidity(square, 1) > 0.99 and solidity(cross, 1) < 0.5
    assert solidity(disc, 1e6) == 0
    assert straight_share(disc) < 0.05 and straight_share(square) > 0.9 and straight_share(0 * disc) == 0
    assert 0.15 < surroundings(disc, 60).sum() / (np.pi * 30**2) < 2


@pytest.mark.parametrize(("shift", "low", "high"), [(0.0, 0.0, 0.01), (3.0, 0.6, 0.8)])
def test_separability_is_that_of_two_classes(shift, low, high):
    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 1, 5000), rng.normal(shift, 1, 5000)
    assert low <= separability(one, other) <= high
    assert separability(one, one[:0]) == separability(np.ones(3), np.ones(4)) == 0
