"""Masks and metrics against scipy, scikit-image and py-ctcmetrics: medians and ratios, on one thread.

`python tests/benchmarks/bench_masks.py [--side 1024] [--repeats 5]`: a mosaic of real nuclei, about a minute. It also
prints the mean IoU of the mask chain's objects with those of the others: at equal settings, where the target is 0.99 at
4x the speed, and with the pipeline's defaults, which merge basins over shallow saddles and drop specks.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import gaussian, sobel
from skimage.measure import label, regionprops
from skimage.morphology import remove_small_holes, remove_small_objects
from skimage.segmentation import watershed

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/helpers")]

from ctc_metrics.utils.representations import match as ctc_match  # noqa: E402
from mask_chain import PLAIN, mean_iou, mosaic, scipy_chain  # noqa: E402
from pycocotools import mask as rle  # noqa: E402
from stardist.matching import matching  # noqa: E402
from timing import interleaved  # noqa: E402

from components.refine_masks.pseudo_masks import refine_proposal  # noqa: E402
from shared.artifacts.coco import label_rles  # noqa: E402
from shared.imaging.grey import grey  # noqa: E402
from shared.imaging.region_properties import region_properties  # noqa: E402
from shared.instances.label_image import fill_holes  # noqa: E402
from shared.instances.watershed import split_touching  # noqa: E402
from shared.metrics.contingency import overlap  # noqa: E402
from shared.metrics.instances import THRESHOLDS  # noqa: E402
from shared.metrics.tally import tally  # noqa: E402


def recipe(mask: np.ndarray) -> np.ndarray:
    """Distance watershed of tutorials: scipy's distances, peak_local_max, one watershed."""
    mask = remove_small_holes(mask > 0, max_size=64)
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1)
    peaks = peak_local_max(distance, min_distance=4, labels=label(mask, connectivity=1), exclude_border=False)
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-distance, seeds, mask=mask)


def loop_contingency(truth: np.ndarray, found: np.ndarray) -> dict[tuple[int, int], int]:
    """Overlaps object by object."""
    counts = {}
    for name in np.unique(truth)[1:]:
        other, area = np.unique(found[truth == name], return_counts=True)
        counts |= {(int(name), int(o)): int(n) for o, n in zip(other, area, strict=True) if o}
    return counts


def properties(labels: np.ndarray, image: np.ndarray) -> list[tuple]:
    """The columns of cells.csv, by regionprops."""
    return [
        (p.area, p.centroid, p.bbox, p.eccentricity, p.intensity_mean)
        for p in regionprops(labels, intensity_image=image)
    ]


def rle_loop(labels: np.ndarray) -> list[dict]:
    """Run lengths object by object, by pycocotools."""
    return [rle.encode(np.asfortranarray(labels == name).astype(np.uint8)) for name in np.unique(labels)[1:]]


def flooded(probability: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Watershed of the gradient from confident markers, all by scikit-image."""
    markers = np.where(probability >= 0.9, 2, np.where(probability <= 0.1, 1, 0))
    mask = watershed(sobel(gaussian(image, 1)), markers) == 2
    return remove_small_objects(remove_small_holes(mask, max_size=200), max_size=60)


Contest = tuple[str, Callable[[], object], str, Callable[[], object]]
"""What, ours, the other's name, the other."""


def of_masks(mask: np.ndarray, plane: np.ndarray) -> list[Contest]:
    """From a mask (H, W) uint8 to instances, its parts, and the E-step. plane: (H, W) float32, the image."""
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 4.0)
    settings: dict[str, Any] = {
        "border_refinement": "edges",
        "marker_threshold": 0.9,
        "ignore_band": 1,
        "min_area": None,
    }
    holes = {"max_size": 64, "connectivity": 2}

    def ours() -> object:
        return refine_proposal(soft, plane[..., None], **settings)

    return [
        ("mask chain", lambda: split_touching(mask, **PLAIN), "scipy + skimage, same", lambda: scipy_chain(mask)),
        ("  as by default", lambda: split_touching(mask), "the tutorials' chain", lambda: recipe(mask)),
        ("fill holes", lambda: fill_holes(mask, 64), "skimage", lambda: remove_small_holes(mask > 0, **holes)),
        (
            "refine_masks",
            lambda: refine_proposal(soft, plane[..., None], **settings),
            "skimage",
            lambda: flooded(soft, plane),
        ),
    ]


def of_scores(truth: np.ndarray, found: np.ndarray, image: np.ndarray, folder: Path) -> list[Contest]:
    """What is counted and measured on label images (H, W) of an image (H, W); two files go to `folder`."""
    paths = [folder / name for name in ("truth.tif", "found.tif")]
    for path, labels in zip(paths, (truth, found), strict=True):
        tifffile.imwrite(path, labels.astype(np.int32))

    def metrics() -> object:
        return tally(truth, found).metrics()

    def measured() -> object:
        return region_properties(found, image[..., None])

    def stardist() -> object:
        return matching(truth, found, thresh=THRESHOLDS)

    return [
        ("contingency", lambda: overlap(truth, found), "loop", lambda: loop_contingency(truth, found)),
        ("all metrics", metrics, "stardist (F1, AP, PQ)", stardist),
        ("all metrics", metrics, "py-ctcmetrics (SEG)", lambda: ctc_match(str(paths[0]), str(paths[1]))),
        (
            "measure cells",
            lambda: region_properties(found, image[..., None]),
            "skimage",
            lambda: properties(found, image),
        ),
        ("run lengths", lambda: label_rles(found), "pycocotools", lambda: rle_loop(found)),
    ]


def alike(name: str, reference: np.ndarray, found: np.ndarray) -> None:
    """Print the mean IoU of two chains' objects and their numbers."""
    iou, theirs, ours = mean_iou(reference, found)
    print(f"{name}: mean IoU {iou:.4f} of the other's {theirs} objects with ours, {ours}")


def main() -> None:
    """Print how alike the chains are, and a table: ours, the other, and how many times faster ours is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=1024, help="px on a side of the mosaic")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    image, truth = mosaic(args.side)
    mask = (truth > 0).astype(np.uint8)
    found = split_touching(mask)
    print(f"{args.side} x {args.side} px, {int(truth.max())} cells, median of {args.repeats}")
    alike("mask chain, same settings", scipy_chain(mask), split_touching(mask, **PLAIN))
    alike("ours as by default, against the tutorials' chain", recipe(mask), found)
    with tempfile.TemporaryDirectory() as folder:
        pairs = of_masks(mask, grey(image[..., None])) + of_scores(truth, found, image, Path(folder))
        for name, ours, other, theirs in pairs:
            a, b = interleaved({"ours": ours, "theirs": theirs}, args.repeats).values()
            print(f"{name:18} {a * 1e3:9.1f} ms   {other:22} {b * 1e3:9.1f} ms   {b / a:6.1f}x")


if __name__ == "__main__":
    main()
