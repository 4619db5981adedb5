"""Time transfers to and from a real S3 server on this machine: shards against single objects, and one large file.

`python tests/benchmarks/bench_store.py`. Targets: 2,000 images of 50 KiB as shards are uploaded 3 times and downloaded
5 times as fast as one by one with the plain minio client; 500 MiB are downloaded in twice and uploaded in 6 times the
time of a local copy.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/helpers")]

from s3_server import Server  # noqa: E402
from timing import interleaved  # noqa: E402

from shared import store  # noqa: E402
from shared.artifacts.image_set import ImageWriter  # noqa: E402
from shared.artifacts.kinds import Files, ImageSet  # noqa: E402
from shared.artifacts.manifest import seal  # noqa: E402

IMAGES, SIDE = 2000, 160
"""Noise of 160 x 160 px, uint16, which no compression shrinks: 50 KiB each."""
LARGE = 500 * 2**20
REPEATS = 3


def main() -> None:
    """Print medians and ratios."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        server = Server(root / "server")
        os.environ.update(server.environment())
        os.environ.pop("CYTOLOOM_CACHE", None)
        try:
            small(root, server)
            large(root, server)
        finally:
            server.stop()


def small(root: Path, server: Server) -> None:
    """Many images: as an ImageSet, and as one object each."""
    rng = np.random.default_rng(0)
    plain = root / "plain"
    plain.mkdir()
    with ImageWriter(root / "images") as writer:
        for number in range(IMAGES):
            image = rng.integers(0, 2**16, (SIDE, SIDE, 1), np.uint16)
            writer.add(f"image{number:05d}", image, source=f"image{number:05d}.tif")
            (plain / f"image{number:05d}.tif").write_bytes(image.tobytes())
    seal(root / "images", ImageSet)
    client, bucket = server.client(), server.bucket
    names = sorted(path.name for path in plain.iterdir())

    def ours_up() -> None:
        for name, _, _ in store.listing(f"s3://{bucket}/shards"):
            store.remove(f"s3://{bucket}/shards/{name}")
        store.send(root / "images", f"s3://{bucket}/shards")

    def theirs_up() -> None:
        for name in names:
            client.fput_object(bucket, f"plain/{name}", str(plain / name))

    def ours_down() -> None:
        store.fetch(f"s3://{bucket}/shards", root / "fetched")

    def theirs_down() -> None:
        shutil.rmtree(root / "got", ignore_errors=True)
        for name in names:
            client.fget_object(bucket, f"plain/{name}", str(root / "got" / name))

    report(f"{IMAGES} images of {SIDE * SIDE * 2 // 1024} KiB up", ours_up, theirs_up, "objects one by one")
    report(f"{IMAGES} images of {SIDE * SIDE * 2 // 1024} KiB down", ours_down, theirs_down, "objects one by one")


def large(root: Path, server: Server) -> None:
    """One file, against a local copy."""
    folder = root / "model"
    folder.mkdir()
    block = np.random.default_rng(0).integers(0, 256, 2**20, np.uint8).tobytes()
    with (folder / "weights.bin").open("wb") as stream:
        for _ in range(LARGE // len(block)):
            stream.write(block)
    seal(folder, Files)
    uri = f"s3://{server.bucket}/large"

    def up() -> None:
        store.remove(f"{uri}/weights.bin")
        store.send(folder, uri)

    def down() -> None:
        store.fetch(uri, root / "large")

    def copy() -> None:
        with (folder / "weights.bin").open("rb") as source, (root / "copy.new").open("wb") as target:
            shutil.copyfileobj(source, target, 2**20)
        (root / "copy.new").replace(root / "copy")  # a new file each time, as a download makes

    report("500 MiB up", up, copy, "a local copy")
    report("500 MiB down", down, copy, "a local copy")


def report(transfer: str, ours: Callable[[], None], theirs: Callable[[], None], name: str) -> None:
    """Print both medians and their ratio."""
    mine, other = interleaved({"ours": ours, "theirs": theirs}, REPEATS).values()
    ratio = f"{other / mine:.2f}x as fast as" if other > mine else f"{mine / other:.2f}x the time of"
    print(f"{transfer}: {mine:.2f} s, {ratio} {name} ({other:.2f} s)", flush=True)


if __name__ == "__main__":
    main()
