"""Measure the estimate of Dice: fit its weights with each set left out once, and rank masks, right and wrong ones.

`python tests/benchmarks/quality_estimate.py [--images 8]` after `wheel_sets.py`. Of each image it takes the masks of
every candidate of the proposals, of Otsu's threshold, of the whole image, and the label itself; and of each run folder
in `runs/quality` the predicted instances. It prints weights, rank correlations over masks and over sets, and a table.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import skimage.io
import tifffile
from quality import ROOT, otsu_mask
from quality_sets import SETS, WHEEL_SETS
from scipy.stats import spearmanr

from pipelines.run_folder.record import RunRecord
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import LabelReader
from shared.assessment.estimated_dice import MIN_TRUSTED, OF_EDGES, OF_SHAPE, OF_SIZE, OFFSET, statistics
from shared.imaging.grey import grey
from shared.instances.watershed import split_touching
from shared.metrics.tally import tally
from shared.proposals.proposal_selection import ProposalSelection

FAMILIES = {"usiigaci_half": "usiigaci", "usiigaci_quarter": "usiigaci"}
"""Sets of the same images -> the one that they are left out with."""
Pair = tuple[np.ndarray, np.ndarray]
"""Image (H, W, C) and label image (H, W)."""


@dataclass(frozen=True)
class Case:
    """A mask with its statistics and true Dice."""

    name: str
    """Set of images."""
    candidate: str
    statistics: tuple[float, float, float]
    dice: float

    @property
    def family(self) -> str:
        """Set that it is left out with."""
        return FAMILIES.get(self.name, self.name)


def main() -> int:
    """Measure all sets, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=8, help="images of each set (default %(default)s)")
    parser.add_argument("--runs", type=Path, nargs="*", default=[ROOT / "runs" / "quality"])
    parser.add_argument("--more", type=Path, default=ROOT / "runs" / "quality" / "wheels")
    args = parser.parse_args()
    data = Path(os.environ.get("CYTOLOOM_DATA") or ROOT.parent / "shared" / "data")
    cases: list[Case] = []
    for name, folders in (SETS | WHEEL_SETS).items():
        base = args.more if name in WHEEL_SETS else data
        if name != "mixed" and all((base / folder).is_dir() for folder in folders):
            cases += proposed(name, pairs([base / folder for folder in folders], args.images))
    for run in sorted(path for folder in args.runs for path in folder.glob("*/run.json")):
        cases += predicted(run.parent, args.images)
    report(cases)
    return 0


def pairs(folders: list[Path], count: int) -> list[Pair]:
    """Some images of folders with their label images, evenly spaced."""
    masks = [path for folder in folders for path in sorted(folder.glob("*_masks.png"))]
    found = []
    for mask in evenly_spaced(masks, count):
        stem = mask.name.removesuffix("_masks.png")
        names = (f"{stem}_img.png", f"{stem}_img.tif", f"{stem}.tif")
        image = next(mask.with_name(name) for name in names if mask.with_name(name).is_file())
        pixels = tifffile.imread(image) if image.suffix == ".tif" else skimage.io.imread(image)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels[..., :3]
        found.append((pixels, skimage.io.imread(mask).astype(np.int32)))
    return found


def proposed(name: str, images: list[Pair]) -> Iterator[Case]:
    """Yield the masks of every candidate, of the selected proposals, of Otsu, of everything, and the labels."""
    selection = ProposalSelection.fit(image for image, _ in images)
    for image, truth in images:
        masks = {one.name: one.probability(image) >= 0.5 for one in selection.candidates()}
        masks |= {"selected": selection.probability(image) >= 0.5, "Otsu": otsu_mask(image)}
        everything = np.ones(truth.shape, bool)
        everything[:3] = False
        labels = {key: split_touching(mask.astype(np.uint8)) for key, mask in (masks | {"all": everything}).items()}
        yield from cases_of(name, image, truth, labels | {"labels": truth})


def predicted(run: Path, count: int) -> Iterator[Case]:
    """Yield the predicted instances of a run of `quality.py`."""
    record = RunRecord.model_validate_json((run / "run.json").read_text())
    if not record.tasks["infer"].outputs:
        return
    images, truth = (run / record.tasks["ingest"].outputs[output].path for output in ("images", "labels"))
    reader, labels = ImageReader(images), LabelReader(truth)
    found = LabelReader(run / record.tasks["infer"].outputs["predictions"].path)
    for key in evenly_spaced(sorted(labels.entries.keys() & found.entries.keys()), count):
        yield from cases_of(run.name.split("-")[0], reader.read(key), labels.mask(key), {"run": found.mask(key)})


def cases_of(name: str, image: np.ndarray, truth: np.ndarray, masks: dict[str, np.ndarray]) -> Iterator[Case]:
    """Yield a case for each label image that has an object."""
    plane = grey(image)
    for candidate, labels in masks.items():
        if (seen := statistics(plane, labels)) is not None:
            yield Case(name, candidate, seen, tally(truth, labels).metrics()["dice"])


def fit(cases: list[Case]) -> np.ndarray:
    """Fit offset and weights by least squares, every set with the same weight: (4,)."""
    counts = {name: sum(case.family == name for case in cases) for name in {case.family for case in cases}}
    scale = np.array([counts[case.family] ** -0.5 for case in cases])
    x, y = table(cases), np.array([case.dice for case in cases])
    return np.linalg.lstsq(x * scale[:, None], y * scale, rcond=None)[0]


def table(cases: list[Case]) -> np.ndarray:
    """Statistics of cases with a column of ones first: (n, 4)."""
    return np.array([(1.0, *case.statistics) for case in cases])


def report(cases: list[Case]) -> None:
    """Print weights, correlations and a table by set and candidate."""
    truths, estimates = np.array([case.dice for case in cases]), np.zeros(len(cases))
    for family in sorted({case.family for case in cases}):
        inside = np.array([case.family == family for case in cases])
        weights = fit([case for case in cases if case.family != family])
        estimates[inside] = (table(cases) @ weights).clip(0, 1)[inside]
    print(f"{len(cases)} masks; weights fitted to all: {fit(cases).round(2)}")
    print(f"weights in use: {[OFFSET, OF_SHAPE, OF_EDGES, OF_SIZE]}")
    in_use = (table(cases) @ np.array([OFFSET, OF_SHAPE, OF_EDGES, OF_SIZE])).clip(0, 1)
    for title, values in (("each set left out once", estimates), ("weights in use", in_use)):
        groups = grouped(cases, values, truths)
        over_sets = spearmanr([row[2] for row in groups], [row[3] for row in groups]).statistic
        over_masks = spearmanr(values, truths).statistic
        print(f"{title}: rank correlation over masks {over_masks:.2f}, over sets and candidates {over_sets:.2f};")
        print(f"  below {MIN_TRUSTED}: {share(values, truths < 0.5):.0%} of the masks below Dice .5,")
        print(f"  {share(values, truths >= 0.7):.0%} of those above .7")
    print("\n| set | candidate | estimated Dice | Dice |\n|---|---|---|---|")
    for name, candidate, estimate, dice in grouped(cases, estimates, truths):
        print(f"| {name} | {candidate} | {estimate:.2f} | {dice:.2f} |")


def grouped(cases: list[Case], estimates: np.ndarray, truths: np.ndarray) -> list[tuple[str, str, float, float]]:
    """Mean estimate and Dice of each set and candidate, the lowest estimate first."""
    names = dict.fromkeys((case.name, case.candidate) for case in cases)
    rows = []
    for name, candidate in names:
        inside = np.array([(case.name, case.candidate) == (name, candidate) for case in cases])
        rows.append((name, candidate, float(estimates[inside].mean()), float(truths[inside].mean())))
    return sorted(rows, key=lambda row: row[2])


def share(estimates: np.ndarray, chosen: np.ndarray) -> float:
    """Share of the chosen masks that are not trusted."""
    return float((estimates[chosen] < MIN_TRUSTED).mean()) if chosen.any() else 0.0


if __name__ == "__main__":
    sys.exit(main())
