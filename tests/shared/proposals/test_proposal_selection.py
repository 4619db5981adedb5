"""Selection of proposals: as good as the best candidate, in sets of one kind and of all kinds."""

import imagecodecs
import numpy as np
import pytest
from real_boxes import bccd_boxes
from real_labels import real_data, real_pairs

from shared.imaging.grey import grey
from shared.metrics.tally import Tally, tally
from shared.proposals.otsu import NORMAL_SEPARABILITY
from shared.proposals.proposal import Proposal, texture_contrast
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
def test_a_set_of_one_kind_gets_the_best_candidate(folder):
    pairs = pairs_of(folder)
    selection = ProposalSelection.fit(image for image, _ in pairs)
    alone_dice = [dice(pairs, one.probability) for one in selection.candidates()]
    assert len(alone_dice) == (8 if pairs[0][0].shape[2] == 3 else 4)
    assert max(alone_dice) - min(alone_dice) > 0.2
    assert dice(pairs, selection.probability) > max(alone_dice) - 0.02
    assert {one.name for one in selection.fitted()} == {KINDS[folder][1]}


def test_in_a_set_of_all_kinds_each_gets_the_same_as_alone():
    pairs = {folder: pairs_of(folder) for folder in KINDS}
    selection = ProposalSelection.fit(image for each in pairs.values() for image, _ in each)
    for folder, each in pairs.items():
        alone = ProposalSelection.fit(image for image, _ in each)
        assert dice(each, selection.probability) > dice(each, alone.probability) - 0.02
        assert selection.select(each[0][0]).name == KINDS[folder][1]


def test_stain_is_a_channel_of_stained_images_alone():
    rng = np.random.default_rng(0)
    image = np.exp(-rng.gamma(2.0, 0.3, (64, 64, 1)) * np.array([0.65, 0.70, 0.29])).astype(np.float32)
    assert ProposalSelection.fit([image]).channels == ("stain", "mean", 0, 1, 2)
    assert ProposalSelection.fit([1 - image]).channels == ("mean", 0, 1, 2)
    assert ProposalSelection.fit([image[..., :1]]).channels == ("mean",)


def test_no_images_and_images_of_one_value():
    nothing = ProposalSelection.fit([])
    image = np.random.default_rng(0).random((40, 50, 1)).astype(np.float32)
    assert nothing.select(image).channel == "mean" and nothing.fitted() == []
    flat = ProposalSelection.fit([np.zeros((40, 50, 3), np.uint8)])
    assert flat.fitted()[0].separability <= NORMAL_SEPARABILITY
    assert (flat.probability(np.zeros((40, 50, 3), np.uint8)) < 0.5).all()


def test_images_that_look_alike_decide_the_side_of_the_foreground():
    """Of two sections that are mostly red muscle, the texture alone would take everything else for foreground."""
    pairs = real_pairs("dsb2018/histo_purple", 43)
    selection = ProposalSelection.fit(image for image, _ in pairs)
    assert {one.foreground_is_bright for one in selection.fitted()} == {False}
    misled = [image for image, _ in pairs if texture_contrast(grey(image, 1)) > 0]
    assert len(misled) == 2
    for image, mask in pairs:
        if texture_contrast(grey(image, 1)) > 0:
            assert selection.probability(image)[mask > 0].mean() > 0.6


@pytest.mark.parametrize(("values", "side"), [((0.2, 0.8), 1), ((0.8, 0.2), -1)])
def test_the_side_of_more_texture(values, side):
    rng = np.random.default_rng(0)
    plane = np.full((64, 64), values[0], np.float32)
    plane[16:48, 16:48] = values[1] + 0.1 * rng.normal(size=(32, 32))
    assert np.sign(texture_contrast(plane)) == side and texture_contrast(np.ones((8, 8), np.float32)) == 0


def test_an_inverted_copy_of_nested_cells_gets_the_same_masks():
    pairs = pairs_of("dsb2018/gray_bright")
    inverted = [(np.iinfo(image.dtype).max - image, mask) for image, mask in pairs]
    one, other = (ProposalSelection.fit(image for image, _ in each) for each in (pairs, inverted))
    assert {(found.is_nested, found.foreground_is_bright) for found in one.fitted()} == {(True, False)}
    assert {(found.is_nested, found.foreground_is_bright) for found in other.fitted()} == {(True, True)}
    assert abs(dice(inverted, other.probability) - dice(pairs, one.probability)) < 0.001


def test_a_few_images_with_an_inner_level_do_not_make_a_set_nested():
    """Some nuclei are brighter than others: their contour alone would be taken for the better one."""
    pairs = [(image[..., None], mask) for image, mask in real_pairs("dsb2018/fluo", 60)]
    selection = ProposalSelection.fit(image for image, _ in pairs)
    inner = selection.nested[:, 1] > 0
    assert 2 <= inner.sum() < 15
    assert {one.is_nested for one in selection.fitted()} == {False}
    some = [pair for pair, nested in zip(pairs, inner, strict=True) if nested]
    alone = [selection.select(image).model_copy(update={"is_nested": True}) for image, _ in some]
    taken = [dice([pair], one.probability) for pair, one in zip(some, alone, strict=True)]
    assert np.mean([dice([pair], selection.probability) for pair in some]) > np.mean(taken) + 0.2


def test_blood_smears_get_a_channel_that_shows_white_cells_too():
    """Blue parts red cells from the background as well as green does, but leaves white cells out."""
    boxes = bccd_boxes("val", 16)
    images = {key: imagecodecs.imread(str(real_data() / f"bccd/val/{key}.jpg")) for key in boxes}
    selection = ProposalSelection.fit(images.values())
    green, blue = selection.candidates()[3:5]
    assert (green.channel, blue.channel) == (1, 2) and blue.separability > 0.95 * green.separability

    def covered(proposal: Proposal) -> float:
        """Share of the boxes of white cells that is foreground."""
        shares = []
        for key, found in boxes.items():
            mask = proposal.probability(images[key]) >= 0.5
            for x, y, width, height in (map(int, one.bbox) for one in found if one.category == "WBC"):
                shares.append(mask[y : y + height, x : x + width].mean())
        return float(np.mean(shares))

    assert {one.channel for one in selection.fitted()} == {1}
    assert covered(selection.fitted()[0]) > covered(blue.model_copy(update={"foreground_is_bright": False})) + 0.2
