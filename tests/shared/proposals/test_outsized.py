"""Images whose objects are far larger than the set's: thresholded anew where smaller objects stand out within them."""

import cv2
import numpy as np
import pytest
from real_labels import real_pair, real_pairs

from shared.instances.watershed import split_touching
from shared.metrics.tally import tally
from shared.proposals.outsized import flatten, is_of_size, is_outsized, probability_within_windows
from shared.proposals.proposal_selection import ProposalSelection

GLOWING = ("538b7673d507", "cb4df20a83b2", "ddf1bf458312")
"""Images of embryos and tissue that glow as a whole."""


@pytest.fixture(scope="module")
def nuclei() -> list[tuple[np.ndarray, np.ndarray]]:
    found = [(i.astype(np.float32), m) for i, m in real_pairs("dsb2018/fluo", 40) if i.ndim == 2 and m.max() > 15]
    return [pair for pair in found if np.bincount(pair[1].ravel())[1:].mean() < 700][:6]


@pytest.mark.parametrize("name", GLOWING)
def test_nuclei_in_a_body_that_glows_are_found(nuclei, name):
    image, labels = real_pair("dsb2018/fluo", name)
    selection = ProposalSelection.fit([*(one[..., None] for one, _ in nuclei), image[..., None]])
    proposal = selection.select(image[..., None])
    whole = proposal.model_copy(update={"object_diameter": None})
    found, lost = (
        tally(labels, split_touching((one.probability(image[..., None]) >= 0.5).astype(np.uint8))).metrics()
        for one in (proposal, whole)
    )
    assert lost["dice"] < 0.6 and found["dice"] > lost["dice"] + 0.2 and found["f1"] > lost["f1"] + 0.05


def test_the_other_images_stay_as_they_are(nuclei):
    selection = ProposalSelection.fit(one[..., None] for one, _ in nuclei)
    for image, _ in nuclei:
        proposal = selection.select(image[..., None])
        assert proposal.object_diameter is not None
        whole = proposal.model_copy(update={"object_diameter": None})
        assert np.array_equal(proposal.probability(image[..., None]), whole.probability(image[..., None]))


def test_a_large_nucleus_with_a_texture_is_one():
    rng = np.random.default_rng(0)
    mask = np.zeros((200, 200), np.uint8)
    cv2.circle(mask, (100, 100), 70, 1, -1)
    texture = cv2.GaussianBlur(rng.normal(0, 1, mask.shape), (0, 0), 4.0) * 0.2
    values = (mask * (1 + texture) + rng.normal(0, 0.02, mask.shape)).astype(np.float32)
    assert is_outsized(mask, 20) and not is_outsized(mask, 50) and not is_outsized(0 * mask, 20)
    assert probability_within_windows(values, mask, 20, 0.4) is None
    assert not is_of_size(mask, 20) and is_of_size(mask, 130) and not is_of_size(0 * mask, 20)


def test_flat_images_keep_their_channels():
    image = np.random.default_rng(0).random((40, 50, 3)).astype(np.float32) + np.linspace(0, 9, 50)[:, None]
    flat = flatten(image, 5.0)
    assert flat.shape == image.shape and abs(float(flat.mean())) < 0.05
    assert flatten(image[..., :1], 5.0).shape == (40, 50, 1)
