"""Real images with label images, and typical errors of predictions."""

import importlib.util
import os
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from skimage.filters import threshold_otsu

ROOT = Path(__file__).parents[2]


def wheel_nuclei() -> tuple[np.ndarray, np.ndarray]:
    """Image (512, 512) uint16 and 125 hand-labelled nuclei, from the stardist wheel."""
    spec = importlib.util.find_spec("stardist")
    assert spec is not None and spec.origin is not None, "stardist is in requirements/dev.lock"
    folder = Path(spec.origin).parent / "data/images"
    return tifffile.imread(folder / "img2d.tif"), tifffile.imread(folder / "mask2d.tif").astype(np.uint16)


def real_data() -> Path:
    """The folder of real images, which may be absent."""
    return Path(os.environ.get("CYTOLOOM_DATA") or ROOT.parent / "shared/data")


def real_pairs(folder: str, limit: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The first images and label images below the folder of real data, e.g. `dsb2018/fluo`; skips where absent."""
    data = real_data() / folder
    if not data.is_dir():
        pytest.skip(f"{data}: no real images; set CYTOLOOM_DATA to their folder")
    pairs = []
    for mask in sorted(data.glob("*_masks.png"))[:limit]:
        stem = mask.name.removesuffix("_masks.png")
        image = next(path for path in (data / f"{stem}_img.png", data / f"{stem}.tif") if path.is_file())
        pairs.append((imagecodecs.imread(str(image)), imagecodecs.imread(str(mask))))
    return pairs


def real_pair(folder: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The image and label image of this name below the folder of real data; skips where absent."""
    data = real_data() / folder
    if not data.is_dir():
        pytest.skip(f"{data}: no real images; set CYTOLOOM_DATA to their folder")
    image, labels = (imagecodecs.imread(str(data / f"{name}_{kind}.png")) for kind in ("img", "masks"))
    return image, labels


def otsu(image: np.ndarray) -> np.ndarray:
    """Foreground mask (H, W) uint8 by Otsu's threshold."""
    grey = image if image.ndim == 2 else image[..., :3].mean(axis=-1)
    return (grey > threshold_otsu(grey)).astype(np.uint8)


def mistakes(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Name -> label image with one kind of error."""
    rng = np.random.default_rng(0)
    names = np.unique(labels)[1:]
    some = rng.choice(names, max(1, len(names) // 3), replace=False)
    dropped = np.where(np.isin(labels, some), 0, labels)
    inner = cv2.erode((labels > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
    merged = (labels + 1) // 2
    split = labels.copy()
    for name in some:
        y, x = np.nonzero(labels == name)
        split[y[y > np.median(y)], x[y > np.median(y)]] = labels.max() + name
    return {
        "same": labels,
        "eroded": labels * inner,
        "merged": merged,
        "split": split,
        "shifted": np.roll(labels, (3, -2), (0, 1)),
        "far": np.roll(labels, (40, 60), (0, 1)),
        "dropped": dropped,
        "invented": np.where(
            (labels == 0) & (np.roll(labels, 25, 0) > 0), np.roll(labels, 25, 0) + labels.max(), labels
        ),
        "one": (labels > 0).astype(labels.dtype),
    }
