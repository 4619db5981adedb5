"""Gated inference on many images of 1 megapixel: how long it waits for data, and whether its memory grows.

`python tests/benchmarks/bench_infer.py [--images 500] [--positive 0.1]`: a quarter of an hour on two cores, 1.3 GB of
disk. The images are 16-bit phase contrast (Usiigaci; without it, mosaics of the wheel's nuclei), each a different cut
of a frame with its mirror images. A small classifier calls `--positive` of them positive, which a segmentor of the size
`nano` then sees. To be reached: waiting for data at most 10 % of the wall time, also with the classifier alone, and a
peak of memory that is the same for a fifth of the images.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/helpers")]

import numpy as np  # noqa: E402
import tifffile  # noqa: E402
from real_labels import real_data, wheel_nuclei  # noqa: E402

SIDE = 1024


def frames() -> list[np.ndarray]:
    """Real images, 2 * SIDE px on each side: a frame and its mirror images."""
    found = sorted((real_data() / "usiigaci/unlabelled").glob("*.tif"))
    planes = [tifffile.imread(path) for path in found] or [np.tile(wheel_nuclei()[0], (2, 2))]
    return [np.pad(plane, [(0, 2 * SIDE - length) for length in plane.shape], "symmetric") for plane in planes]


def write_image_set(folder: Path, count: int) -> Path:
    """`count` images of SIDE x SIDE px, each cut elsewhere."""
    from shared.artifacts.image_set import ImageWriter
    from shared.artifacts.kinds import ImageSet
    from shared.artifacts.manifest import seal

    rng, planes = np.random.default_rng(0), frames()
    with ImageWriter(folder) as writer:
        for number in range(count):
            y, x = rng.integers(SIDE, size=2)
            plane = planes[number % len(planes)][y : y + SIDE, x : x + SIDE, None]
            writer.add(f"image{number:05d}", plane, source=f"image{number:05d}.tif")
    seal(folder, ImageSet)
    return folder


def write_models(folder: Path, images: Path, positive: float) -> None:
    """A classifier, whose bias is set so that the share `positive` of the images is positive, and a segmentor."""
    import torch
    from small_classifier import trained, write_classifier
    from small_segmentor import write_model

    from shared.artifacts.image_set import ImageReader
    from shared.models.class_predictor import ClassPredictor

    reader = ImageReader(images)
    found = ClassPredictor.of(trained(), "cpu")([reader.read(key) for key in reader.keys()[:40]]).probability
    margin = np.log(found[:, 1] / found[:, 0])
    with torch.no_grad():
        trained().head.bias[1] -= float(np.quantile(margin, 1 - positive))
    write_classifier(folder / "classifier")
    write_model(folder / "segmentor")


def work(folder: Path, name: str, with_segmentor: bool) -> None:
    """Run the stage in this process; print its figures as JSON."""
    from components.infer.component import Infer
    from components.infer.main import run
    from shared.system.devices import library_threads, threads

    assert library_threads(threads())
    out = folder / "out" / f"{name}-{with_segmentor}"
    for part in ("predictions", "files"):
        (out / part).mkdir(parents=True)
    models = {"classifier": folder / "classifier"} | ({"segmentor": folder / "segmentor"} if with_segmentor else {})
    settings = {"target_error": "none", "distance_quantile": "none", "images": folder / name}
    outputs = {"predictions": out / "predictions", "files": out / "files"}
    metrics = run(Infer.model_validate({**models, **settings, **outputs})).metrics
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(metrics | {"peak_mb": peak}))


def main() -> None:
    """Print the figures of each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--positive", type=float, default=0.1)
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(Path(args.work[0]), args.work[1], args.work[2] == "gated")
        return
    print(f"{'models':24} {'images':>6} {'images/s':>9} {'positive':>8} {'waiting':>8} {'peak':>8}")
    with tempfile.TemporaryDirectory(prefix="cytoloom-bench-") as temporary:
        folder = Path(temporary)
        sets = {f"set{count}": count for count in (args.images // 5, args.images)}
        for name, count in sets.items():
            write_image_set(folder / name, count)
        write_models(folder, folder / f"set{args.images}", args.positive)
        for models in ("classifier", "gated"):
            for name in sets:
                command = [sys.executable, __file__, "--work", temporary, name, models]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found = json.loads(done.stdout.splitlines()[-1])
                print(
                    f"{'classifier' if models == 'classifier' else 'classifier and segmentor':24} "
                    f"{found['images']:6.0f} {found['images'] / found['seconds']:9.2f} {found['positive']:8.0f} "
                    f"{found['waiting_share']:8.1%} {found['peak_mb']:5.0f} MB",
                    flush=True,
                )


if __name__ == "__main__":
    main()
