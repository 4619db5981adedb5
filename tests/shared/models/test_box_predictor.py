"""Boxes of images of any size: nothing lost or doubled at a seam, on real nuclei at full density.

The network is an oracle: the second channel of its input holds the label image, and it returns the true boxes of what
a tile shows, at most as many as it has queries. What is tested is the tiling, the splitting and the merging.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from real_labels import real_pairs
from scipy.ndimage import find_objects

from shared.imaging.normalise import Normalisation
from shared.instances.detections import Detections, box_iou
from shared.models.box_predictor import BoxPredictor, positions
from shared.models.config import (
    DetectorArchitecture,
    DetectorConfig,
    DetectorPostProcessing,
    ModelInput,
    VitArchitecture,
)
from shared.models.detector import Detector

torch.set_num_threads(1)  # a loaded machine is much slower with more
VIT = VitArchitecture(size="nano", width=32, depth=1, heads=2, patch=16)
SIDE, CODE = 1024, 20_000
"""px of the mosaic; the value that marks the range of the channel of labels."""


@cache
def mosaic() -> np.ndarray:
    """Real fluorescence images of the highest density, side by side: (1024, 1024, 2), nuclei and their labels."""
    pairs = [(image, labels) for image, labels in real_pairs("dsb2018/fluo", 303) if min(labels.shape) >= 256]
    pairs.sort(key=lambda pair: -len(np.unique(pair[1])) / pair[1].size)
    out, count = np.zeros((SIDE, SIDE, 2), np.uint16), 0
    for i, (image, labels) in enumerate(pairs[:16]):
        y, x = divmod(i, 4)
        part = (slice(256 * y, 256 * y + 256), slice(256 * x, 256 * x + 256))
        labels = labels[:256, :256]
        names, local = np.unique(labels, return_inverse=True)
        local = local.reshape(labels.shape)
        out[*part, 0] = image[:256, :256].reshape(256, 256, -1)[..., 0]
        out[*part, 1] = np.where(local > 0, local + count, 0)
        count += len(names) - 1
    out[0, 0, 1] = CODE
    return out


def true_boxes(labels: np.ndarray) -> np.ndarray:
    """Label image (H, W) -> boxes (n, 4) x0, y0, x1, y1; the mark is none."""
    labels = np.where(labels == CODE, 0, labels)
    found = [part for part in find_objects(labels) if part is not None]
    return np.array([[x.start, y.start, x.stop, y.stop] for y, x in found], np.float32).reshape(-1, 4)


class Oracle:
    """The true boxes of each tile, at most `queries`, the largest first."""

    def __init__(self, queries: int, *, jitter_px: float = 0, min_px: int = 1) -> None:
        self.queries, self.jitter_px, self.min_px = queries, jitter_px, min_px
        self.rng, self.tiles = np.random.default_rng(0), 0

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """Normalised tiles (N, 2, H, W) -> scores (N, Q, 1), boxes (N, Q, 4)."""
        self.tiles += len(images)
        scores = np.zeros((len(images), self.queries, 1), np.float32)
        boxes = np.zeros((len(images), self.queries, 4), np.float32)
        height, width = images.shape[2:]
        for i, image in enumerate(images):
            found = true_boxes(np.rint(image[1] * CODE).astype(np.int64))
            sides = found[:, 2:] - found[:, :2]
            found = found[(sides >= self.min_px).all(axis=1)]
            found = found[np.argsort(-np.prod(found[:, 2:] - found[:, :2], axis=1), kind="stable")][: self.queries]
            found = found + self.rng.uniform(-1, 1, found.shape) * self.jitter_px
            scores[i, : len(found), 0] = self.rng.uniform(0.6, 1, len(found))
            boxes[i, : len(found)] = found / [width, height, width, height]
        return scores, boxes


def predictor(network: object, queries: int, *, channels: int = 2, downsample: int = 1, **fields) -> BoxPredictor:
    config = DetectorConfig(
        architecture=DetectorArchitecture.preset(
            "small", VIT, ("nucleus",), queries=queries, width=32, decoder_layers=1
        ),
        input=ModelInput(
            channels=channels,
            downsample=downsample,
            um_per_px=fields.pop("um_per_px", None),
            normalisation=Normalisation(low=0, high=100),
        ),
        postprocessing=DetectorPostProcessing(overlap_px=fields.pop("overlap_px", None)),
    )
    return BoxPredictor(network, config, **fields)  # type: ignore[arg-type]


def matched(found: Detections, truth: np.ndarray, iou: float) -> tuple[int, int]:
    """Numbers of true boxes that are found, and of boxes that are found beyond one for each."""
    good = box_iou(truth, found.boxes) >= iou
    return int(good.any(axis=1).sum()), len(found) - len(truth)


def rows(boxes: np.ndarray) -> list[tuple[float, ...]]:
    """Boxes in a fixed order, rounded as shares of a tile are."""
    return sorted(map(tuple, boxes.round(2)))


@pytest.mark.parametrize(("queries", "tile"), [(300, 320), (100, 256), (300, 512), (60, 128)])
def test_every_nucleus_of_a_dense_mosaic_is_found_once(queries: int, tile: int) -> None:
    image = mosaic()
    truth, oracle = true_boxes(image[..., 1].astype(np.int64)), Oracle(queries)
    assert len(truth) > 500
    found = predictor(oracle, queries, tile=tile)(image)
    assert rows(found.boxes) == rows(truth)
    assert found.full_tiles == 0


def test_one_tile_of_300_queries_cannot_find_them() -> None:
    """Without splitting; so that the test above tests something."""
    image = mosaic()
    truth = true_boxes(image[..., 1].astype(np.int64))
    (scores,), (boxes,) = Oracle(300)(np.stack([image.transpose(2, 0, 1) / np.float32(CODE)]))
    assert matched(Detections(boxes * SIDE, scores[:, 0], np.zeros(300, np.int64)), truth, 0.5)[0] == 300 < len(truth)


def test_a_tile_that_is_full_is_split_or_counted() -> None:
    image, oracle = mosaic()[:400, :400], Oracle(40)
    truth = true_boxes(image[..., 1].astype(np.int64))
    found = predictor(oracle, 40, tile=512)(image)
    assert oracle.tiles > 20
    recall = matched(found, truth, 0.5)[0] / len(truth)
    assert found.full_tiles == 0 and recall == 1
    few = predictor(Oracle(5), 5, tile=128)(image[:256, :256])
    assert few.full_tiles > 0


def test_recall_is_that_of_the_same_cells_apart() -> None:
    """Boxes off by up to a px in each tile, and slivers not seen: as good as the images one by one, no doubles."""
    image, hits, apart_hits, count, apart_count = mosaic(), 0, 0, 0, 0
    truth = true_boxes(image[..., 1].astype(np.int64))
    found = predictor(Oracle(300, jitter_px=1, min_px=4), 300, tile=320)(image)
    hits, count = matched(found, truth, 0.5)[0], len(found)
    for y in range(0, SIDE, 256):
        for x in range(0, SIDE, 256):
            part = image[y : y + 256, x : x + 256].copy()
            part[0, 0, 1] = CODE
            one = predictor(Oracle(400, jitter_px=1, min_px=4), 400, tile=256)(part)
            apart_hits += matched(one, true_boxes(part[..., 1].astype(np.int64)), 0.5)[0]
            apart_count += len(one)
    assert hits / len(truth) >= apart_hits / len(truth) - 0.01
    assert count <= 1.01 * apart_count


@pytest.mark.parametrize("size", [(70, 500), (256, 256), (333, 777), (31, 20)], ids=str)
def test_images_of_any_size(size: tuple[int, int]) -> None:
    image = mosaic()[: size[0], : size[1]]
    truth = true_boxes(image[..., 1].astype(np.int64))
    found = predictor(Oracle(300), 300, tile=256)(image)
    assert rows(found.boxes) == rows(truth)


def test_downsampling_keeps_px_of_the_image() -> None:
    """The oracle sees the images before the network's downsampling."""
    image = mosaic()[:600, :700]
    truth = true_boxes(image[..., 1].astype(np.int64))
    found = predictor(Oracle(300), 300, tile=160, downsample=2)(image)
    assert rows(found.boxes) == rows(truth)


def test_another_pixel_size_is_resampled_tile_by_tile() -> None:
    """Every second pixel of an image of half the pixel size: exact, as the oracle reads labels."""
    image = mosaic()[:512, :512].repeat(2, axis=0).repeat(2, axis=1)
    truth = true_boxes(image[..., 1].astype(np.int64))
    found = predictor(Oracle(300), 300, tile=256, um_per_px=0.5)(image, 0.25)
    assert matched(found, truth, 0.7) == (len(truth), 0)


def test_memory_maps_give_the_same_boxes(tmp_path: Path) -> None:
    image = mosaic()[:500, :400]
    np.save(tmp_path / "image.npy", image)
    found = [predictor(Oracle(300), 300, tile=256)(a) for a in (image, np.load(tmp_path / "image.npy", mmap_mode="r"))]
    np.testing.assert_array_equal(found[0].boxes, found[1].boxes)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_detector_predicts_images_of_other_channels(channels: int) -> None:
    torch.manual_seed(0)
    config = predictor(None, 50, channels=3).config
    detector = Detector(config).train()
    predict = BoxPredictor.of(detector, "cpu", tile=128)
    image = mosaic()[:150, :200, :1].repeat(channels, axis=2)
    found = predict(image)
    assert found.boxes.shape == (len(found), 4) and found.boxes.dtype == np.float32
    assert detector.training, "the given detector is left as it was"
    again = BoxPredictor.of(detector, "cpu", tile=128, batch_size=1)(image)
    np.testing.assert_allclose(np.sort(again.scores), np.sort(found.scores), atol=1e-5)


def test_the_smallest_tile_has_a_place_for_each_query() -> None:
    assert positions(128) == 16 * 16 + 8 * 8 + 4 * 4
    tiles = predictor(Oracle(400), 400, tile=64)._grid(np.zeros((50, 60, 2)), 1.0)
    assert [(tile.height, tile.width) for tile in tiles] == [(160, 160)]


SIDES = (200, 256, 280, 300, 1024)


def test_tiles_are_those_of_the_training_and_an_image_little_longer_is_one() -> None:
    predict = predictor(Oracle(20), 20, tile=256)
    sides = {length: [tile.height for tile in predict._grid(np.zeros((length, 10, 2)), 1.0)] for length in SIDES}
    assert sides == {200: [224], 256: [256], 280: [288], 300: [256] * 2, 1024: [256] * 5}
