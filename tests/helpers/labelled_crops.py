"""ImageSets whose images have classes, an untrained encoder, and `train_classifier` on them."""

from pathlib import Path

import numpy as np
import torch
from small_classifier import crops

from components.train_classifier.component import TrainClassifier
from components.train_classifier.main import run
from shared.artifacts.image_set import ImageWriter
from shared.artifacts.kinds import ImageSet, LabelSet, Model
from shared.artifacts.label_set import LabelWriter
from shared.artifacts.manifest import seal
from shared.models.backbones.vit import Encoder
from shared.models.config import EncoderConfig, ModelInput, VitArchitecture
from shared.models.files import save_model
from shared.stage.declaration import Result

QUICK = {"steps": 4, "batch_size": 8}
VIT = VitArchitecture.preset("nano", 8).model_copy(update={"depth": 2})


class Labelled:
    """An ImageSet, and a LabelSet with the class of each image."""

    def __init__(self, root: Path) -> None:
        self.root, self.images, self.truth = root, root / "images", root / "truth"
        self.classes: dict[str, str] = {}
        root.mkdir(parents=True, exist_ok=True)

    def write(self, rows: list[tuple[np.ndarray, str, str, str]], more: dict[str, str] | None = None) -> "Labelled":
        """rows: image (H, W, C), class (empty: none), split, group; more: classes of images that are not there."""
        with ImageWriter(self.images) as writer:
            for number, (image, name, split, group) in enumerate(rows):
                key = f"{number:04d}"
                writer.add(key, image, source=f"{key}.tif", split=split, group=group)
                if name:
                    self.classes[key] = name
        with LabelWriter(self.truth, "truth") as labels:
            for key, name in sorted((self.classes | (more or {})).items()):
                labels.classify(key, name)
        seal(self.images, ImageSet)
        seal(self.truth, LabelSet)
        return self

    def train(self, folder: Path, encoder: Path, **options) -> Result:
        folder.mkdir(parents=True)
        result = run(self.stage(folder, encoder, **options))
        seal(folder, Model, skipped=result.skipped)
        return result

    def stage(self, folder: Path, encoder: Path, **options) -> TrainClassifier:
        given = {"images": self.images, "truth": self.truth, "encoder": encoder, "classifier": folder}
        return TrainClassifier(**given, **{**QUICK, **options})


def write_encoder(folder: Path, channels: int = 1) -> Path:
    torch.manual_seed(0)
    config = EncoderConfig(architecture=VIT, input=ModelInput(channels=channels, crop_px=32))
    save_model(folder, Encoder(config).state_dict(), config, "# Untrained")
    seal(folder, Model)
    return folder


def nuclei(count: int, part: str, seed: int, split: str) -> list[tuple[np.ndarray, str, str, str]]:
    """Crops of the wheel's nuclei, in groups of ten: does one show nuclei or background?"""
    images, truth = crops(count, part, seed)
    names = ["nuclei" if k else "background" for k in truth]
    return [
        (image, name, split, f"{split}{i // 10}") for i, (image, name) in enumerate(zip(images, names, strict=True))
    ]


def pictures(*rows: tuple[str, str, str]) -> list[tuple[np.ndarray, str, str, str]]:
    """Images of random pixels with (class, split, group)."""
    rng = np.random.default_rng(0)
    return [(rng.integers(0, 255, (32, 32, 1)).astype(np.uint8), *row) for row in rows]


def titles(html: str) -> list[str]:
    """Headings of a page."""
    return [part.split("</h2>")[0] for part in html.split("<h2>")[1:]]
