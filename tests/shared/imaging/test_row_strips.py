"""Row strips: a filter gives the same on strips as on the whole image."""

import numpy as np
import pytest
from real_labels import otsu, wheel_nuclei

from shared.imaging import row_strips as module
from shared.imaging.filters import log_local_std, smooth
from shared.imaging.grey import grey
from shared.imaging.row_strips import row_slices, row_strips

IMAGE, _ = wheel_nuclei()


@pytest.mark.parametrize("rows", [1, 64, 100, 4096])
def test_strips_are_filtered_as_the_whole_image(rows, monkeypatch):
    monkeypatch.setattr(module, "ROWS", rows)
    plane, mask = grey(IMAGE[:130, :90, None]), otsu(IMAGE[:130, :90])
    found = {name: np.empty_like(plane) for name in ("plane", "smooth", "texture", "mask")}
    for strip in row_strips(IMAGE[:130, :90, None], mask, margin=12):
        results = strip.plane, smooth(strip.plane), log_local_std(strip.plane), strip.mask
        for array, result in zip(found.values(), results, strict=True):
            array[strip.rows] = result[strip.inner]
    assert np.array_equal(found["plane"], plane) and np.array_equal(found["mask"], mask)
    np.testing.assert_allclose(found["smooth"], smooth(plane), atol=1e-6)
    np.testing.assert_allclose(found["texture"], log_local_std(plane), atol=1e-3)


@pytest.mark.parametrize(("height", "rows"), [(0, 5), (4, 5), (5, 5), (12, 5), (1025, None)])
def test_slices_cover_every_row_once(height, rows):
    parts = list(row_slices(height, rows))
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(height))
    assert all(part.stop - part.start <= (rows or 512) for part in parts)
