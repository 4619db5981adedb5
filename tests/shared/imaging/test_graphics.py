"""Scale bars and text in real images: found, and without effect on the proposals; saturated cells stay."""

import cv2
import numpy as np
import pytest
from real_labels import real_pairs, wheel_nuclei

from shared.imaging.graphics import drawn_pixels, without_graphics
from shared.imaging.grey import NORMALISATION
from shared.metrics.pixels import dice_masks
from shared.proposals.proposal_selection import ProposalSelection


def draw(image: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """An image (H, W, C) with a bar or text in white, and where it is."""
    height, width = image.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    if what == "bar":
        mask[round(0.93 * height) : round(0.95 * height), round(0.7 * width) : round(0.95 * width)] = 1
    else:
        cv2.putText(mask, "10 um 03:15", (width // 20, height - height // 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 1, 2)
    drawn = image.copy()
    drawn[mask > 0] = np.iinfo(image.dtype).max
    return drawn, mask


@pytest.mark.parametrize("what", ["bar", "text"])
def test_drawings_are_found_and_the_image_stays_else(what):
    image = wheel_nuclei()[0][..., None]
    drawn, mask = draw(image, what)
    assert np.array_equal(drawn_pixels(drawn[..., 0]), mask > 0)
    cleaned = without_graphics(drawn)
    near = cv2.dilate(mask, np.ones((3, 3), np.uint8)) > 0
    assert np.array_equal(cleaned[~near], image[~near]) and cleaned.max() == image[~near].max()
    assert NORMALISATION.limits(drawn)[0] == pytest.approx(NORMALISATION.limits(image)[0], rel=0.02)


def test_an_image_without_a_drawing_is_returned_itself():
    image = wheel_nuclei()[0][..., None]
    assert without_graphics(image) is image
    saturated = np.minimum(image, np.uint16(np.percentile(image, 99)))
    assert without_graphics(saturated) is saturated
    for plain in (np.zeros((40, 40, 1), np.uint8), np.full((40, 40, 3), 7.0), np.zeros((0, 5, 1), np.uint8)):
        assert without_graphics(plain) is plain


@pytest.mark.parametrize("radius", [10, 30])
def test_saturated_cells_are_not_drawings(radius):
    rng = np.random.default_rng(0)
    plane = np.zeros((256, 256), np.float32)
    for centre in ((60, 70), (180, 90), (120, 190)):
        cv2.circle(plane, centre, radius, 1.0, -1)
    image = 20 + 600 * cv2.GaussianBlur(plane, (0, 0), 2.0) + rng.normal(0, 3, plane.shape)
    saturated = image.clip(0, 255).astype(np.uint8)[..., None]
    assert (saturated == 255).sum() > 500 and without_graphics(saturated) is saturated


@pytest.mark.parametrize("what", ["bar", "text"])
@pytest.mark.parametrize("folder", ["dsb2018/fluo", "usiigaci/labelled"])
def test_proposals_are_as_good_as_those_of_the_plain_images(folder, what):
    pairs = [(image[..., None], labels) for image, labels in real_pairs(folder, 12) if image.ndim == 2][:4]
    drawn = [draw(image, what) for image, _ in pairs]
    plain, other = (ProposalSelection.fit(images) for images in ([one for one, _ in pairs], [one for one, _ in drawn]))
    scores = np.zeros((2, len(pairs)))
    for i, ((image, labels), (with_drawing, mask)) in enumerate(zip(pairs, drawn, strict=True)):
        away = cv2.dilate(mask, np.ones((25, 25), np.uint8)) == 0
        for row, found in enumerate((plain.probability(image), other.probability(with_drawing))):
            scores[row, i] = dice_masks(((found >= 0.5) & away).astype(np.uint8), (labels > 0) & away)
    assert abs(np.diff(scores.mean(axis=1))[0]) < 0.02
