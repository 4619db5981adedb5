"""Empty fields hold only noise; images of cells, of any kind and in noise, hold more."""

import cv2
import numpy as np
import pytest
from real_labels import real_pairs

from shared.assessment.estimated_dice import estimate_dice
from shared.assessment.noise import is_noise
from shared.imaging.grey import grey
from shared.instances.watershed import split_touching


@pytest.mark.parametrize("blur", [0.0, 1.0])
def test_an_empty_field_is_noise_and_its_masks_are_not_trusted(blur):
    rng = np.random.default_rng(0)
    image = rng.normal(100, 8, (300, 400)).astype(np.float32)
    image = cv2.GaussianBlur(image, (0, 0), blur) if blur else image
    plane = grey(image[..., None])
    assert is_noise(plane)
    labels = split_touching((cv2.GaussianBlur(plane, (0, 0), 2.0) > np.percentile(plane, 60)).astype(np.uint8))
    assert labels.max() > 10 and estimate_dice(image[..., None], labels) == 0


@pytest.mark.parametrize("folder", ["dsb2018/fluo", "dsb2018/histo_purple", "dsb2018/gray_bright", "usiigaci/labelled"])
def test_images_of_cells_are_not_noise(folder):
    rng = np.random.default_rng(0)
    for image, _ in real_pairs(folder, 8):
        plane = grey(image if image.ndim == 3 else image[..., None])
        assert not is_noise(plane)
        assert not is_noise((plane + rng.normal(0, 0.03, plane.shape)).astype(np.float32))


def test_planes_without_contrast_or_too_small():
    assert not is_noise(np.zeros((50, 60), np.float32)) and not is_noise(np.random.default_rng(0).random((8, 60)))
