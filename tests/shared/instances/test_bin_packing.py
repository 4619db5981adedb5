"""Packing: boxes neither overlap nor come closer than the gap."""

from itertools import pairwise

import numpy as np

from shared.instances.bin_packing import batches_by_area, pack, pack_arrays


def boxes(count: int) -> list[tuple[slice, slice]]:
    rng = np.random.default_rng(0)
    corners, sizes = rng.integers(0, 100, (count, 2)), rng.integers(1, 40, (count, 2))
    return [(slice(y, y + h), slice(x, x + w)) for (y, x), (h, w) in zip(corners, sizes, strict=True)]


def test_places_are_apart_and_hold_what_their_boxes_hold():
    image = np.random.default_rng(1).integers(1, 255, (150, 150)).astype(np.uint8)
    places, (canvas,) = pack_arrays([image], boxes(60), gap=3)
    assert places == pack(boxes(60), gap=3)[0]
    taken = np.zeros(canvas.shape, int)
    for (y, x), place in zip(boxes(60), places, strict=True):
        assert np.array_equal(canvas[place], image[y, x])
        assert place[0].start % 2 == place[1].start % 2 == 0
        taken[place[0].start : place[0].stop + 3, place[1].start : place[1].stop + 3] += 1
    assert taken.max() == 1 and (canvas[taken == 0] == 0).all()


def test_batches_are_as_large_as_allowed():
    areas = [(y.stop - y.start) * (x.stop - x.start) for y, x in boxes(60)]
    batches = list(batches_by_area(boxes(60), 1000))
    assert [i for batch in batches for i in batch] == list(range(60))
    for batch, after in pairwise(batches):
        total = sum(areas[i] for i in batch)
        assert (total <= 1000 or len(batch) == 1) and total + areas[after.start] > 1000
