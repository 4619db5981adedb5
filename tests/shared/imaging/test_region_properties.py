"""Region properties against scikit-image's."""

import numpy as np
import pytest
from real_labels import mistakes, wheel_nuclei
from skimage.measure import regionprops

from shared.imaging import region_properties as module
from shared.imaging.region_properties import mean_over_objects, region_properties

IMAGE, TRUTH = wheel_nuclei()


@pytest.mark.parametrize("mistake", ["split", "merged", "same"])
def test_properties_of_every_shape_are_those_of_skimage(mistake, monkeypatch):
    labels = np.unique(mistakes(TRUTH)[mistake], return_inverse=True)[1].reshape(TRUTH.shape).astype(np.uint32)
    labels[0, 0] = labels.max() + 1  # one pixel
    monkeypatch.setattr(module, "_ROWS", 100)  # objects reach over several strips
    image = np.stack([IMAGE, IMAGE[::-1]], axis=-1)
    columns, theirs = region_properties(labels, image), regionprops(labels, intensity_image=image)
    assert columns["area_px"].tolist() == [prop.area for prop in theirs]
    centroids = np.stack([columns["centroid_y"], columns["centroid_x"]], axis=1)
    assert centroids == pytest.approx(np.array([prop.centroid for prop in theirs]))
    boxes = np.stack([columns[name] for name in ("y0", "x0", "y1", "x1")], axis=1)
    assert boxes.tolist() == [list(prop.bbox) for prop in theirs]
    assert columns["eccentricity"] == pytest.approx([prop.eccentricity for prop in theirs], abs=1e-6)
    for channel in (0, 1):
        means = [prop.intensity_mean[channel] for prop in theirs]
        assert columns[f"mean_{channel}"] == pytest.approx(means)
        assert mean_over_objects(labels, image[..., channel].astype(np.float32)) == pytest.approx(means)


def test_values_that_are_not_finite_do_not_count():
    image = np.ones((4, 4, 1), np.float32)
    image[0, 0], image[0, 1], image[1, 1] = np.nan, np.inf, 3
    columns = region_properties((np.indices((4, 4)).sum(0) < 3).astype(np.uint8), image)
    assert columns["mean_0"].tolist() == [(3 + 3) / 4]


def test_no_objects():
    columns = region_properties(np.zeros((5, 6), np.uint16), np.ones((5, 6, 2), np.uint8))
    assert all(len(values) == 0 for values in columns.values()) and "mean_1" in columns
