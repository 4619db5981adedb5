"""Choose the images that the EM loop learns from and is scored on, and copy them with their labels."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from components.sample_images.component import SampleImages
from components.sample_images.page import make_page
from shared.artifacts.image_set import ImageReader, ImageWriter
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import LabelReader, LabelWriter
from shared.data.labelled_images import choose_images, foreign_label, learned_labels
from shared.data.sampling import sample_keys
from shared.imaging.appearance import appearance
from shared.models.config import EncoderConfig, ModelInput, SegmentorConfig
from shared.models.files import load_config
from shared.stage.declaration import Result
from shared.system.errors import ArtifactError, UserError
from shared.system.log import log
from shared.system.progress import track


def run(stage: SampleImages) -> Result:
    """Choose by keys, sizes and thumbnails, and copy the stored bytes one image at a time."""
    reader, truth = ImageReader(stage.images), LabelReader(stage.truth)
    train = reader.keys("train")
    if not train:
        raise UserError(f"--images: none of the {len(reader)} images is of the split train; add some to it")
    foreign = next((key for key in truth.entries if key not in reader.entries), None)
    if foreign is not None:
        raise ArtifactError(foreign_label(foreign, reader))
    labelled = learned_labels(truth, set(train), stage.use_labels)
    config: Any = load_config(stage.model, EncoderConfig, SegmentorConfig)
    learned = sorted({*_of_limited_size(stage, reader, train, config.input), *labelled})
    scored = evenly_spaced(choose_images(truth, reader, stage.use_labels).keys, stage.max_sample)
    known = {*scored, *labelled}
    others = evenly_spaced(sorted(set(reader.entries) - known), stage.max_sample)
    sample = sorted({*known, *others})
    _copy_images(reader, learned, stage.learned)
    _copy_images(reader, sample, stage.sample)
    _copy_labels(truth, sorted(known), stage.labels)
    log.info("%d of %d images are learned from, %d are scored on", len(learned), len(train), len(scored))
    megapixels = sum(map(reader.pixel_count, learned)) / 1e6
    counts = {"images": len(learned), "train_images": len(train), "scored": len(scored)}
    return Result(
        metrics={name: float(count) for name, count in counts.items()} | {"megapixels": megapixels},
        page=make_page(reader, learned, train, scored),
        remark="" if len(learned) == len(train) else f"{len(learned)} of {len(train)} images are learned from.",
    )


def _of_limited_size(stage: SampleImages, reader: ImageReader, train: list[str], seen_as: ModelInput) -> list[str]:
    """Keys of the training images, or of a part that keeps to the limits; ascending."""

    def appearance_of(key: str) -> np.ndarray:
        image = reader.read(key)
        return appearance(image, seen_as.normalisation.limits(image), seen_as.normalisation)

    considered = evenly_spaced(train, stage.max_images)
    areas = np.array([reader.pixel_count(key) for key in considered]) / seen_as.downsample**2
    return sample_keys(considered, areas, stage.max_megapixels * 1e6, appearance_of)


def _copy_images(reader: ImageReader, keys: Collection[str], out: Path) -> None:
    with ImageWriter(out) as writer:
        for key in track(keys, f"sample_images: {out.name}", len(keys)):
            writer.copy(reader, key)


def _copy_labels(truth: LabelReader, keys: Collection[str], out: Path) -> None:
    with LabelWriter(out, truth.info.origin, truth.info.notes) as writer:
        for key in keys:
            writer.copy(truth, key)
