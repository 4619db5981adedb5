"""An image with a label image in the forms of other programs, and what `ingest` makes of it."""

from pathlib import Path

import numpy as np
import tifffile
from ingest_run import Outcome, ingest
from PIL import Image
from real_labels import wheel_nuclei

NUCLEI, _ = wheel_nuclei()
IMAGE = NUCLEI[:96, :96]
OBJECTS = np.zeros((96, 96), np.uint8)
for i in range(9):
    OBJECTS[8 + 30 * (i // 3) : 24 + 30 * (i // 3), 8 + 30 * (i % 3) : 24 + 30 * (i % 3)] = i + 1
SQUARES = np.zeros((48, 48), np.uint8)
SQUARES[5:15, 5:15], SQUARES[25:40, 25:40] = 1, 2


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels)
    else:
        Image.fromarray(pixels).save(path)


def labelled(folder: Path, mask: np.ndarray | Image.Image, name: str = "a_masks.png") -> Outcome:
    """Ingest `a.png` with a label image."""
    save(folder / "in/a.png", IMAGE)
    mask = Image.fromarray(mask) if isinstance(mask, np.ndarray) else mask
    mask.save(folder / "in" / name)
    return ingest(folder / "in", folder / "out")


def remarks(outcome: Outcome) -> str:
    return outcome.result.page.html()


def same_objects(found: np.ndarray, truth: np.ndarray) -> bool:
    """Whether two label images have the same objects, whatever their numbers."""
    pairs = {(int(a), int(b)) for a, b in zip(found.ravel(), truth.ravel(), strict=True)}
    return len(pairs) == len(np.unique(found)) == len(np.unique(truth)) and (0, 0) in pairs


def disc(y: int, x: int, radius: int) -> np.ndarray:
    rows, columns = np.ogrid[:96, :96]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def enlarged(small: np.ndarray, method: Image.Resampling) -> np.ndarray:
    return np.array(Image.fromarray(small).resize((96, 96), method))
