"""Benchmark the k-means of `cluster` against scikit-learn's and faiss's, and its assignment against a matrix product.

`python tests/benchmarks/bench_kmeans.py [--points 500000] [--k 64] [--threads 1] [--repeats 5]`: three minutes, 3 GB.
Points are patches of 16 x 24 px of real microscopy images, each image standardised. All start once (n_init 1) and run
20 iterations; inertia is over all points. scikit-learn is timed once, ours before and after. Targets: 20x as fast as
scikit-learn at 1.01x its inertia, an assignment in twice the time of points @ centroids.T, equal centroids every time.
CPU seconds are printed as well, since wall time depends on the machine's other work.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/helpers")]
PARSER = argparse.ArgumentParser(description=__doc__)
PARSER.add_argument("--points", type=int, default=500_000)
PARSER.add_argument("--k", type=int, default=64)
PARSER.add_argument("--threads", type=int, default=1)
PARSER.add_argument("--repeats", type=int, default=5)
ARGS = PARSER.parse_args()
for name in ("CYTOLOOM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # libraries read them on import
    os.environ[name] = str(ARGS.threads)
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

import faiss  # noqa: E402
import imagecodecs  # noqa: E402
import numpy as np  # noqa: E402
import sklearn  # noqa: E402
from real_labels import real_data, wheel_nuclei  # noqa: E402
from sklearn.cluster import KMeans  # noqa: E402

from components.cluster.clustering import Clusters  # noqa: E402
from components.cluster.coreset_kmeans import ITERATIONS, kmeans, nearest_centroids  # noqa: E402

HEIGHT, WIDTH = 16, 24
"""px of a patch: 384 values."""


def planes() -> list[np.ndarray]:
    """Grey images: phase contrast and fluorescence of the real data, or the stardist wheel's where these are absent."""
    data = real_data()
    paths = sorted((data / "usiigaci/unlabelled").glob("*.tif"))[:6] + sorted((data / "dsb2018/fluo").glob("*_img.png"))
    images = [np.asarray(imagecodecs.imread(str(path)), np.float32) for path in paths[:66]]
    return [image if image.ndim == 2 else image[..., :3].mean(axis=-1) for image in images] or [
        wheel_nuclei()[0].astype(np.float32)
    ]


def patches(images: list[np.ndarray], count: int) -> np.ndarray:
    """Cut patches at random positions, equally many from every image: (count, 384) float32."""
    rng = np.random.default_rng(0)
    points = np.empty((count, HEIGHT * WIDTH), np.float32)
    share = -(-count // len(images))
    for i, image in enumerate(images):
        rows = points[i * share : (i + 1) * share]
        windows = np.lib.stride_tricks.sliding_window_view((image - image.mean()) / image.std(), (HEIGHT, WIDTH))
        y, x = rng.integers(windows.shape[0], size=len(rows)), rng.integers(windows.shape[1], size=len(rows))
        rows[:] = windows[y, x].reshape(len(rows), -1)
    return points


def inertia(points: np.ndarray, centroids: np.ndarray) -> float:
    """Sum the squared distances of all points to their nearest centroid."""
    own = nearest_centroids(points, centroids)
    rows = range(0, len(points), 2**14)
    return sum(float(((points[i : i + 2**14] - centroids[own[i : i + 2**14]]) ** 2).sum()) for i in rows)


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Measure wall time and CPU time of `work`."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def assignments(points: np.ndarray, centroids: np.ndarray) -> None:
    """Time the hard and the soft assignment of all points beside one product; medians of interleaved repeats."""
    product = np.empty((len(points), len(centroids)), np.float32)
    channels = points.shape[1]
    clusters = Clusters(np.zeros(channels, np.float32), np.eye(channels, dtype=np.float32), centroids, 1.0)
    works: dict[str, Callable[[], object]] = {
        "one product": lambda: np.matmul(points, centroids.T, out=product),
        "assignment": lambda: nearest_centroids(points, centroids),
        "shares": lambda: clusters.assign(points),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ARGS.repeats):
        for name, work in works.items():
            times[name].append(seconds(work)[0])
    one = median(times["one product"])
    for name, all_times in times.items():
        print(f"{name:18} {median(all_times) * 1e3:9.0f} ms   {median(all_times) / one:6.2f}x one product")


def faiss_alone(points: np.ndarray, k: int, seed: int, max_points_per_centroid: int) -> np.ndarray:
    """Centroids of faiss's own k-means, 20 iterations from random points."""
    engine = faiss.Kmeans(
        points.shape[1], k, niter=ITERATIONS, seed=seed + 1, max_points_per_centroid=max_points_per_centroid
    )
    engine.train(points)
    return np.array(engine.centroids)


def faiss_variants(points: np.ndarray, reference: float) -> None:
    """Print CPU time and inertia of faiss's own k-means, relative to `reference`: default sampling, and all points."""
    faiss.omp_set_num_threads(ARGS.threads)
    for name, size in (("faiss, sampled", 256), ("faiss, all points", len(points))):
        times, shares = [], []
        for seed in range(3):
            cpu = time.process_time()
            centroids = faiss_alone(points, ARGS.k, seed, size)
            times.append(time.process_time() - cpu)
            shares.append(inertia(points, centroids) / reference)
        print(f"{name:18} {median(times):9.2f} s CPU   inertia {min(shares):.4f}x to {max(shares):.4f}x")


def main() -> None:
    """Print the measurements."""
    points = patches(planes(), ARGS.points)
    print(
        f"{len(points)} x {points.shape[1]}, k = {ARGS.k}, {ARGS.threads} thread(s); "
        f"scikit-learn {sklearn.__version__}, faiss {faiss.__version__}, numpy {np.__version__}"
    )
    found: list[np.ndarray] = []
    before = max(1, ARGS.repeats // 2)
    ours = [seconds(lambda: found.append(kmeans(points, ARGS.k, 0))) for _ in range(before)]
    model = KMeans(ARGS.k, n_init=1, max_iter=ITERATIONS, tol=0, random_state=0)
    theirs = seconds(lambda: model.fit(points))
    ours += [seconds(lambda: found.append(kmeans(points, ARGS.k, 0))) for _ in range(ARGS.repeats - before)]
    reference = inertia(points, model.cluster_centers_.astype(np.float32))
    share = inertia(points, found[0]) / reference
    for i, kind in enumerate(("wall", "CPU")):
        a, b = median(times[i] for times in ours), theirs[i]
        print(f"{'k-means, ' + kind:18} {a:9.2f} s    scikit-learn {b:9.2f} s   {b / a:6.1f}x")
    print(f"{'inertia':18} {share:9.4f}x scikit-learn's after {model.n_iter_} iterations")
    others = [inertia(points, kmeans(points, ARGS.k, seed)) for seed in (1, 2)]
    print(f"{'other seeds':18} " + ", ".join(f"{other / model.inertia_:.4f}x" for other in others))
    faiss_variants(points, reference)
    print(f"{'equal every time':18} {all(np.array_equal(found[0], other) for other in found[1:])!s:>9}")
    assignments(points, found[0])


if __name__ == "__main__":
    main()
