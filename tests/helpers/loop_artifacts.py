"""Artifacts of real images, with features made by hand, for the tests of the EM loop's stages."""

from pathlib import Path

import numpy as np
from real_labels import real_pairs

from shared.artifacts.feature_set import FeatureWriter
from shared.artifacts.image_set import ImageWriter
from shared.artifacts.kinds import FeatureSet, ImageSet, LabelSet
from shared.artifacts.label_set import LabelReader, LabelWriter
from shared.artifacts.manifest import hash_folder, seal

STRIDE = 8


def patches(image: np.ndarray) -> np.ndarray:
    """Mean and spread of each channel in squares of 8 px: (H // 8, W // 8, 2 C). Crude, and made by nobody's stage."""
    height, width, channels = image.shape
    cut = image[: height // STRIDE * STRIDE, : width // STRIDE * STRIDE].astype(np.float32)
    cut = (cut - np.median(cut)) / (cut.std() + 1e-6)
    blocks = cut.reshape(height // STRIDE, STRIDE, width // STRIDE, STRIDE, channels)
    return np.concatenate([blocks.mean(axis=(1, 3)), np.log(blocks.std(axis=(1, 3)) + 0.01)], axis=-1)


class Data:
    """Sealed artifacts below one folder."""

    def __init__(self, root: Path, pairs: list[tuple[np.ndarray, np.ndarray]], model: list | None = None) -> None:
        """pairs: images (H, W) or (H, W, C) and their label images; model: a foreground probability of each."""
        self.root = root
        self.images, self.truth, self.features, self.none = (root / n for n in ("images", "truth", "features", "none"))
        pairs = [(image if image.ndim == 3 else image[..., None], mask) for image, mask in pairs]
        self.masks = {f"image{i}": mask for i, (_, mask) in enumerate(pairs)}
        with ImageWriter(self.images) as images, FeatureWriter(self.features) as features:
            for i, (image, _) in enumerate(pairs):
                image = image[..., :3]
                images.add(f"image{i}", image, source=f"{i}.tif")
                probability = model[i] if model else None
                features.add(f"image{i}", patches(image), stride=STRIDE, size=image.shape[:2], probability=probability)
        self.labels("truth", self.masks, "truth")
        self.labels("none", {})
        for name, kind in (("images", ImageSet), ("features", FeatureSet)):
            seal(root / name, kind)

    def labels(
        self, name: str, masks: dict, origin: str = "pseudo", conf: dict | None = None, skipped=None, notes=None
    ) -> Path:
        with LabelWriter(self.root / name, origin, notes) as writer:
            for key in sorted(masks):
                writer.add(key, masks[key], "foreground", (conf or {}).get(key))
        seal(self.root / name, LabelSet, skipped=skipped)
        return self.root / name

    def out(self, name: str) -> Path:
        (self.root / name).mkdir()
        return self.root / name

    def dice(self, name: str) -> float:
        """Seal an output and score it: mean Dice with the truth."""
        seal(self.root / name, LabelSet)
        reader = LabelReader(self.root / name)
        return float(np.mean([dice(reader.mask(key), self.masks[key]) for key in self.masks]))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a > 0, b > 0
    return 2 * (a & b).sum() / max(1, a.sum() + b.sum())


def payload(folder: Path) -> dict[str, str]:
    return {name: file.sha256 for name, file in hash_folder(folder).items()}


def real_data(root: Path, folder: str, count: int, side: int = 512) -> Data:
    """The upper left corners, to keep tests short."""
    return Data(root, [(image[:side, :side], mask[:side, :side]) for image, mask in real_pairs(folder, count)])
