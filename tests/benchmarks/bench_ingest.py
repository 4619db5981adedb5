"""Ingest in isolated processes against the same code in threads of one process: medians and ratio.

`python tests/benchmarks/bench_ingest.py [--images 2000] [--repeats 3]`: PNG files with label images, cut from the real
nuclei of the stardist wheel; five minutes. Target: at most 1.1.
"""

import argparse
import importlib.util
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import skimage.io
import tifffile

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from timing import interleaved  # noqa: E402

from shared.readers import image_job, ingestion  # noqa: E402

SIDE = 256


def main() -> int:
    """Write the images, ingest them in both ways, print seconds and their ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "source"
        write(source, args.images)

        def ingest() -> None:
            with tempfile.TemporaryDirectory(dir=temporary) as out:
                for name in ("images", "labels"):
                    (Path(out) / name).mkdir()
                ingestion.ingest(source, Path(out) / "images", Path(out) / "labels")

        def in_threads() -> None:
            with mock.patch.object(image_job, "isolated", direct):
                ingest()

        found = interleaved({"isolated processes": ingest, "threads": in_threads}, args.repeats)
    for name, seconds in found.items():
        print(f"{name:20} {seconds:6.1f} s, {args.images / seconds:5.1f} images/s")
    print(f"ratio                {found['isolated processes'] / found['threads']:.2f}")
    return 0


def direct(_: Any, function: Any, *arguments: Any) -> Any:
    """Call a function in this process."""
    return function(*arguments)


def write(folder: Path, count: int) -> None:
    """Write `count` crops of the wheel's image and of its label image, each at another place."""
    folder.mkdir()
    spec = importlib.util.find_spec("stardist")
    data = Path(str(spec and spec.origin)).parent / "data/images"
    image, labels = (tifffile.imread(data / name) for name in ("img2d.tif", "mask2d.tif"))
    rng = np.random.default_rng(0)
    for number in range(count):
        y, x = rng.integers(0, np.array(image.shape[:2]) - SIDE + 1)
        for name, plane in ((f"{number:05d}.png", image), (f"{number:05d}_masks.png", labels)):
            crop = np.ascontiguousarray(plane[y : y + SIDE, x : x + SIDE])
            skimage.io.imsave(folder / name, crop, check_contrast=False)


if __name__ == "__main__":
    sys.exit(main())
