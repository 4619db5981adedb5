"""Gradient and edge score on edges of known position."""

import numpy as np
from real_labels import wheel_nuclei
from scipy import ndimage

from shared.imaging.gradients import edge_score, gradient, near_border
from shared.imaging.grey import grey

IMAGE, TRUTH = wheel_nuclei()


def test_the_gradient_is_that_of_scipy():
    plane = grey(IMAGE[..., None])
    smoothed = ndimage.gaussian_filter(plane, 1, mode="mirror")
    expected = np.hypot(ndimage.sobel(smoothed, 0, mode="mirror"), ndimage.sobel(smoothed, 1, mode="mirror"))
    np.testing.assert_allclose(gradient(plane), expected, atol=0.02)


def test_masks_score_higher_on_the_edges_than_beside_them():
    magnitude = gradient(grey(IMAGE[..., None]))
    mask = (TRUTH > 0).astype(np.uint8)
    scores = [edge_score(np.roll(mask, shift, 0), magnitude) for shift in (0, 5, 15)]
    assert scores[0] > scores[1] > scores[2]
    assert edge_score(np.zeros_like(mask), magnitude) is None


def test_a_flat_image_scores_1():
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 10:30] = 1
    assert edge_score(mask, np.ones((40, 40), np.float32)) == 1


def test_near_border_is_a_band_of_the_given_width():
    mask = np.zeros((40, 40), np.uint8)
    mask[:, 20:] = 1
    assert near_border(mask, 5)[5].nonzero()[0].tolist() == [18, 19, 20, 21]
