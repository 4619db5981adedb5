"""Instances from maps against scikit-image and cellpose: medians and ratios, on one thread.

`python tests/benchmarks/bench_instances.py [--side 1024] [--repeats 5]`: a mosaic of 500 real nuclei, about a minute.
The maps are those of the labels with smooth noise, as a network's errors are. It also prints the mean IoU of the
objects with those of the others, where the target is 0.99 at 3x the speed.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage.measure import label
from skimage.segmentation import watershed

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/helpers")]

from cellpose import dynamics  # noqa: E402
from mask_chain import mean_iou, mosaic  # noqa: E402
from timing import interleaved  # noqa: E402

from shared.artifacts.postprocessing import PostProcessing  # noqa: E402
from shared.instances.distance import instance_distance  # noqa: E402
from shared.instances.flows.dynamics import instances_of_flow  # noqa: E402
from shared.instances.flows.field import heat_flow  # noqa: E402
from shared.instances.seeded_watershed import seeded_watershed  # noqa: E402

SEED, FILL = PostProcessing().cells_max_threshold, PostProcessing().cell_fill_threshold
NOISE = 0.1
"""Standard deviation of the noise in the maps."""


def smooth_noise(shape: tuple[int, ...]) -> np.ndarray:
    """Noise (H, W) float32 that is alike within some pixels."""
    plane = np.random.default_rng(0).standard_normal(shape, np.float32)
    plane = cv2.GaussianBlur(plane, (0, 0), 2)
    return plane * (NOISE / plane.std())


def chain(distance: np.ndarray) -> np.ndarray:
    """Seeds and watershed of a distance map by scikit-image."""
    return watershed(-distance, label(distance >= SEED, connectivity=1), mask=distance >= FILL)


def ours(distance: np.ndarray) -> np.ndarray:
    """The same by `seeded_watershed`."""
    return seeded_watershed(distance, (distance >= FILL).astype(np.uint8), SEED)


def by_cellpose(flow: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Instances of a flow by cellpose's own dynamics, nothing dropped."""
    where = np.nonzero(mask)
    ends = dynamics.follow_flows(flow * mask, where, niter=200)
    return np.asarray(dynamics.get_masks_torch(ends.int(), where, mask.shape))


def main() -> None:
    """Print how alike the instances are, and a table: ours, the other, and how many times faster ours is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=1024, help="px on a side of the mosaic")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    labels = mosaic(args.side)[1].astype(np.int64)
    mask = (labels > 0).astype(np.uint8)
    smooth = cv2.GaussianBlur(instance_distance(labels), (0, 0), 1)  # as networks draw it: maxima are not sharp
    distance = (smooth + smooth_noise(mask.shape) * mask).clip(0, 1)
    flow = 0.8 * heat_flow(labels) + np.stack([smooth_noise(mask.shape), smooth_noise(mask.shape).T])
    print(f"{args.side} x {args.side} px, {int(labels.max())} cells, median of {args.repeats}")
    contests = (
        ("distance", lambda: ours(distance), "scikit-image", lambda: chain(distance)),
        ("flow", lambda: instances_of_flow(flow, mask), "cellpose", lambda: by_cellpose(flow, mask)),
    )
    for name, own, other, theirs in contests:
        iou, count, found = mean_iou(theirs(), own())
        a, b = interleaved({"ours": own, "theirs": theirs}, args.repeats).values()
        print(f"{name:10} {a * 1e3:8.1f} ms   {other:12} {b * 1e3:8.1f} ms   {b / a:5.1f}x", end="   ")
        print(f"mean IoU {iou:.4f} of {count} objects with ours, {found}")
    a, b = interleaved({"a": lambda: heat_flow(labels), "b": lambda: dynamics.masks_to_flows_gpu(labels)}, 1).values()
    print(f"{'heat flow':10} {a * 1e3:8.1f} ms   {'cellpose':12} {b * 1e3:8.1f} ms   {b / a:5.1f}x")


if __name__ == "__main__":
    main()
