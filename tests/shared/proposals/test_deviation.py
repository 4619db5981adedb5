"""Deviations from the background: found however rare they are, on either side, at any scale; texture is none."""

import cv2
import numpy as np
import pytest
from real_labels import real_pairs

from shared.imaging.filters import smooth
from shared.metrics.pixels import dice_masks
from shared.proposals.background import subtract_background
from shared.proposals.deviation import deviation_probability, most_deviating_part, plausibility
from shared.proposals.proposal import deviating_plane
from shared.proposals.proposal_selection import MIN_PLAUSIBILITY, ProposalSelection, one_sided


def sparse_scene(dark: bool) -> tuple[np.ndarray, np.ndarray]:
    """Nuclei of a fluorescence image, 0.5 % of the pixels, on the uneven grey background of a phase-contrast image."""
    _, labels = next((i, m) for i, m in real_pairs("dsb2018/fluo", 40) if i.ndim == 2 and 4 <= m.max() <= 12)
    phase, cells = next((i, m) for i, m in real_pairs("usiigaci/labelled", 20) if (m[:256, :256] > 0).mean() < 0.02)
    noise = phase[:256, :256].astype(np.float32)
    noise[cells[:256, :256] > 0] = np.median(noise)
    noise = np.clip(noise, *np.percentile(noise, [2, 98]))  # without the edges of cells
    scene = np.tile(np.block([[noise, noise[:, ::-1]], [noise[::-1], noise[::-1, ::-1]]]), (2, 2))
    scene += np.linspace(0, 4 * noise.std(), scene.shape[1], dtype=np.float32)
    mask = np.zeros(scene.shape, np.uint8)
    mask[300:556, 400:656] = labels[:256, :256] > 0
    height = 40 * noise.std() * cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.0)
    return (scene - height if dark else scene + height)[..., None], mask


@pytest.mark.parametrize("dark", [True, False])
def test_a_foreground_of_less_than_a_percent_is_found(dark):
    image, mask = sparse_scene(dark)
    assert 0.001 < mask.mean() < 0.02
    selection = ProposalSelection.fit([image])
    assert selection.fitted()[0].name == ("darker" if dark else "brighter") + " than the background"
    assert dice_masks((selection.probability(image) >= 0.5).astype(np.uint8), mask) > 0.9


def test_the_background_of_an_uneven_crowded_image():
    """Half of the pixels are objects; the surface and its spread are those of the others."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:200j, -1:1:300j]
    background = (0.4 + 0.2 * x - 0.1 * y + 0.1 * x * x).astype(np.float32)
    noise = rng.normal(0, 0.01, background.shape).astype(np.float32)
    objects = (np.indices(background.shape) // 20).sum(axis=0) % 2 == 0
    values = 0.3 + 0.3 * rng.random(background.shape)
    difference, spread = subtract_background(background + noise + np.where(objects, values, 0).astype(np.float32))
    assert 0.01 < spread < 0.025
    assert np.abs((difference - noise)[~objects]).max() < 0.01
    flat, least = subtract_background(np.full((9, 7), 3.0, np.float32))
    assert np.abs(flat).max() < 1e-5 and least > 0


def test_an_empty_field_has_no_deviation():
    rng = np.random.default_rng(0)
    plane = smooth(rng.normal(0.5, 0.1, (128, 128)).astype(np.float32))
    for bright in (False, True):
        assert (deviation_probability(plane, bright) < 0.5).all()


@pytest.mark.parametrize("zoom", [0.5, 1, 2])
def test_plausibility_tells_cells_from_their_complement_at_any_scale(zoom):
    for image, labels in real_pairs("dsb2018/fluo", 6):
        plane = deviating_plane(image[..., None] if image.ndim == 2 else image)
        size = (round(plane.shape[1] * zoom), round(plane.shape[0] * zoom))
        plane = cv2.resize(plane, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
        mask = cv2.resize((labels > 0).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        background = subtract_background(plane)
        assert plausibility(mask, *background) > max(MIN_PLAUSIBILITY, 1.5 * plausibility(1 - mask, *background))
        assert plausibility(0 * mask, *background) == 0


def test_fragments_of_cells_in_phase_contrast_are_not_plausible():
    """What is brighter or darker than the background there are the edges of cells, to either side alike."""
    for image, _ in real_pairs("usiigaci/labelled", 4):
        plane = deviating_plane(image[..., None])
        background = subtract_background(plane)
        masks = ((deviation_probability(plane, bright) >= 0.5).astype(np.uint8) for bright in (False, True))
        dark, bright = (plausibility(mask, *background) for mask in masks)
        assert max(one_sided(dark, bright), one_sided(bright, dark)) < 0.75 * MIN_PLAUSIBILITY


def crowded_spindles(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Bright spindles of 10 px by 25 px with a dark rim, in groups, on noise: image (H, W, 1) and mask."""
    rng = np.random.default_rng(0)
    plane, mask = np.zeros((400, 400), np.float32), np.zeros((400, 400), np.uint8)
    y, x = np.mgrid[:400, :400].astype(np.float32)
    for centre in rng.uniform(60, 340, (8, 2))[rng.integers(8, size=count)] + rng.normal(0, 40, (count, 2)):
        angle, height = rng.uniform(0, np.pi), rng.uniform(0.1, 0.2)
        along = (x - centre[1]) * np.cos(angle) + (y - centre[0]) * np.sin(angle)
        across = (y - centre[0]) * np.cos(angle) - (x - centre[1]) * np.sin(angle)
        radius = np.hypot(along / 12.5, across / 5)
        rim = (radius >= 1) & (radius < 1.5) & (mask == 0)
        plane[rim] = -0.1
        inside = (radius < 1) & (mask == 0)
        plane[inside] = height * np.clip(1.6 * (1 - radius[inside]), 0.3, 1)
        mask |= inside
    noise = rng.normal(0, 0.03, plane.shape)
    return (0.4 + cv2.GaussianBlur(plane, (0, 0), 1.0) + noise).astype(np.float32)[..., None], mask


@pytest.mark.parametrize("count", [60, 250])
def test_bright_cells_that_touch_in_groups_are_plausible(count):
    image, mask = crowded_spindles(count)
    selection = ProposalSelection.fit([image])
    assert selection.fitted()[0].name == "brighter than the background"
    assert dice_masks((selection.probability(image) >= 0.5).astype(np.uint8), mask) > 0.8


def test_the_most_deviating_part():
    difference = np.zeros((50, 70), np.float32)
    difference[30:34, 60:66] = -9
    rows, columns = most_deviating_part(difference, 1.0, 10)
    assert rows.start <= 30 and rows.stop >= 34 and columns.start <= 60 and columns.stop >= 66
    assert most_deviating_part(difference, 1.0, 99) == np.s_[0:50, 0:70]


@pytest.mark.parametrize("folder", ["dsb2018/fluo", "dsb2018/histo_light", "usiigaci/labelled"])
def test_the_side_can_be_given(folder):
    """Also on the stain, whose high values are dark cells."""
    images = [image if image.ndim == 3 else image[..., None] for image, _ in real_pairs(folder, 4)]
    means = {}
    for side in ("dark", "bright"):
        selection = ProposalSelection.fit(images, side)
        assert "texture" not in {one.kind for one in selection.fitted()}
        found = [selection.probability(image) >= 0.5 for image in images]
        grey = [deviating_plane(image) for image in images]
        means[side] = [plane[mask].mean() for plane, mask in zip(grey, found, strict=True)]
    assert (np.array(means["dark"]) < np.array(means["bright"])).all()
    assert {one.kind for one in ProposalSelection.fit(images, "textured").fitted()} == {"texture"}
