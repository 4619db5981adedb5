"""Measure a detector on a crowded image: a mosaic of real images against the same images apart.

`python tests/benchmarks/quality_crowded.py DETECTOR DATA [--side 1024]` puts the test images with the most objects
beside each other until they fill a square of `side` px. DETECTOR is a model of `train_detector`; DATA is a folder with
the ImageSet `images` and the LabelSet `labels`, as quality_detector.py makes them. It prints the recall, at IoU 0.5,
of both ways: at the model's threshold, and of all detections. Objects at the borders of the parts do not count: beside
each other, two cut objects look like one. No network finds more objects in one pass than it has queries; the detector
cuts the mosaic into tiles, and full tiles into smaller ones.
"""

import argparse
from pathlib import Path

import numpy as np

from components.train_detector.labelled_images import instance_boxes
from shared.artifacts.annotation import Annotation
from shared.artifacts.image_set import ImageReader
from shared.artifacts.label_set import LabelReader
from shared.imaging.overlays import to_rgb8
from shared.metrics.boxes import ALL, precision_recall
from shared.models.box_predictor import BoxPredictor
from shared.models.detector import Detector
from shared.models.load import load_model

Boxes = dict[str, list[Annotation]]


def main() -> None:
    """Print objects, detections and recall of both ways."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("detector", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--side", type=int, default=1024, help="px")
    args = parser.parse_args()
    model = load_model(args.detector, Detector)
    threshold, queries = model.config.postprocessing.score_threshold, model.config.architecture.queries
    predictor, names = BoxPredictor.of(model, "cpu"), model.config.architecture.classes
    parts, labels = densest(ImageReader(args.data / "images"), LabelReader(args.data / "labels"), args.side)
    columns = args.side // parts[0].shape[1]
    for way, images, masks in (
        ("apart", parts, labels),
        ("mosaic", [joined(parts, columns)], [joined([numbered(one, i) for i, one in enumerate(labels)], columns)]),
    ):
        truth: Boxes = {str(i): objects(mask, parts[0].shape[:2]) for i, mask in enumerate(masks)}
        found: Boxes = {str(i): predictor(image).annotations(names) for i, image in enumerate(images)}
        sure = {key: [one for one in boxes if one.score >= threshold] for key, boxes in found.items()}
        recalls = [recall(truth, boxes) for boxes in (sure, found)]
        count = sum(not one.iscrowd for boxes in truth.values() for one in boxes)
        print(
            f"{way:6}: {count} objects, {sum(map(len, sure.values()))} found at the threshold "
            f"{threshold:.2f} by {queries} queries, recall {recalls[0]:.4f}; of all detections {recalls[1]:.4f}"
        )


def densest(images: ImageReader, labels: LabelReader, side: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Test images (H, W, 3) uint8 of the commonest size that fill `side` x `side` px, with their label images.

    Each is stretched to its own contrast, so that the mosaic's contrast is that of its parts.
    """
    masks = {key: labels.mask(key) for key in images.keys("test") if key in labels.entries}
    shapes = [mask.shape for mask in masks.values()]
    shape = max(set(shapes), key=shapes.count)
    count = (side // shape[0]) * (side // shape[1])
    keys = sorted((key for key in masks if masks[key].shape == shape), key=lambda key: -len(np.unique(masks[key])))
    chosen = keys[:count]
    return [to_rgb8(images.read(key).astype(np.float32)) for key in chosen], [masks[key] for key in chosen]


def joined(parts: list[np.ndarray], columns: int) -> np.ndarray:
    """Images (H, W, ...) of one shape -> one image, `columns` of them in a row."""
    rows = [np.concatenate(parts[first : first + columns], axis=1) for first in range(0, len(parts), columns)]
    return np.concatenate(rows)


def numbered(mask: np.ndarray, number: int) -> np.ndarray:
    """The label image (H, W) with other numbers than those of other parts."""
    return np.where(mask > 0, mask.astype(np.int64) + 100_000 * number, 0)


def objects(mask: np.ndarray, part: tuple[int, int]) -> list[Annotation]:
    """Boxes of a label image (H, W) with any numbers. Those at the borders of parts of size (h, w) are crowds."""
    numbers, dense = np.unique(mask, return_inverse=True)
    dense = dense.reshape(mask.shape)
    rows, columns = (np.arange(length) % side for length, side in zip(mask.shape, part, strict=True))
    border = ((rows == 0) | (rows == part[0] - 1))[:, None] | ((columns == 0) | (columns == part[1] - 1))
    return instance_boxes(dense, ~np.isin(np.arange(1, len(numbers)), np.unique(dense[border])))


def recall(truth: Boxes, found: Boxes) -> float:
    """Fraction of the true objects that are found, at IoU 0.5."""
    return float(precision_recall(truth, found)[ALL].recall[-1])


if __name__ == "__main__":
    main()
