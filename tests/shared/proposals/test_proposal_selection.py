"""Which proposal serves which image: as good as the best one by itself, in sets of one kind and of all kinds."""

import numpy as np
import pytest
from real_labels import real_pairs

from shared.imaging.grey import MEAN, STAIN, grey, is_stained, stain
from shared.metrics.tally import Tally, tally
from shared.proposals.otsu import UNIMODAL
from shared.proposals.proposal import brightness
from shared.proposals.proposal_selection import ProposalSelection

KINDS = {
    "usiigaci/labelled": (6, "texture"),
    "dsb2018/fluo": (12, "intensity"),
    "dsb2018/histo_purple": (6, "intensity of channel 2"),
    "dsb2018/histo_light": (6, "intensity of channel 2"),
    "dsb2018/gray_bright": (6, "intensity"),
}


def pairs_of(folder: str) -> list[tuple[np.ndarray, np.ndarray]]:
    found = real_pairs(folder, KINDS[folder][0])
    return [(image if image.ndim == 3 else image[..., None], mask) for image, mask in found]


def dice(pairs, probability) -> float:
    total = sum((tally(mask, (probability(image) >= 0.5).astype(np.uint8)) for image, mask in pairs), Tally())
    return total.metrics()["dice"]


@pytest.mark.parametrize("folder", KINDS)
def test_a_set_of_one_kind_gets_what_is_best_for_it(folder):
    pairs = pairs_of(folder)
    choice = ProposalSelection.among(image for image, _ in pairs)
    by_itself = [dice(pairs, one.probability) for one in choice.each()]
    assert len(by_itself) == (6 if pairs[0][0].shape[2] == 3 else 2)
    assert max(by_itself) - min(by_itself) > 0.2
    assert dice(pairs, choice.probability) > max(by_itself) - 0.02
    assert {one.name for one in choice.taken()} == {KINDS[folder][1]}


def test_in_a_set_of_all_kinds_each_gets_what_it_gets_alone():
    pairs = {folder: pairs_of(folder) for folder in KINDS}
    choice = ProposalSelection.among(image for each in pairs.values() for image, _ in each)
    for folder, each in pairs.items():
        alone = ProposalSelection.among(image for image, _ in each)
        assert dice(each, choice.probability) > dice(each, alone.probability) - 0.02
        assert choice.proposal(each[0][0]).name == KINDS[folder][1]


def test_the_stain_is_the_optical_density_along_its_main_axis():
    """Two stains in any amounts: the plane rises with what there is of the one that varies most."""
    rng = np.random.default_rng(0)
    amount = rng.gamma(2.0, 0.3, (64, 64, 1)) + 0.2 * rng.random((64, 64, 1))
    image = np.exp(-amount * np.array([0.65, 0.70, 0.29])).astype(np.float32)
    assert is_stained(image) and not is_stained(1 - image) and not is_stained(image[..., :1])
    plane = stain(image)
    order = np.argsort(amount.ravel())
    assert np.corrcoef(np.arange(order.size), np.argsort(np.argsort(plane.ravel()))[order])[0, 1] > 0.99
    assert STAIN in ProposalSelection.among([image]).planes and STAIN not in ProposalSelection.among([1 - image]).planes


def test_nothing_seen_and_nothing_to_see():
    nothing = ProposalSelection.among([])
    image = np.random.default_rng(0).random((40, 50, 1)).astype(np.float32)
    assert nothing.proposal(image).channel == MEAN and nothing.taken() == []
    flat = ProposalSelection.among([np.zeros((40, 50, 3), np.uint8)])
    assert flat.taken()[0].separability <= UNIMODAL
    assert (flat.probability(np.zeros((40, 50, 3), np.uint8)) < 0.5).all()


def test_images_that_look_alike_tell_the_side_of_the_foreground():
    """Two sections that are mostly red muscle: by their own texture alone everything else would be the foreground."""
    pairs = real_pairs("dsb2018/histo_purple", 43)
    choice = ProposalSelection.among(image for image, _ in pairs)
    assert {one.bright for one in choice.taken()} == {False}
    misled = [image for image, _ in pairs if brightness(grey(image, 1)) > 0]
    assert len(misled) == 2
    for image, mask in pairs:
        if brightness(grey(image, 1)) > 0:
            assert choice.probability(image)[mask > 0].mean() > 0.6


@pytest.mark.parametrize(("values", "side"), [((0.2, 0.8), 1), ((0.8, 0.2), -1)])
def test_the_side_of_more_texture(values, side):
    rng = np.random.default_rng(0)
    plane = np.full((64, 64), values[0], np.float32)
    plane[16:48, 16:48] = values[1] + 0.1 * rng.normal(size=(32, 32))
    assert np.sign(brightness(plane)) == side and brightness(np.ones((8, 8), np.float32)) == 0
