"""Dense features of the training images, and the segmentor's foreground probability where the model is one."""

import numpy as np

from components.extract_features.component import ExtractFeatures
from components.extract_features.dense_extractor import DenseExtractor
from components.extract_features.filter_bank import FilterExtractor, measured
from components.extract_features.position_correction import measure
from shared.artifacts.feature_set import FeatureWriter
from shared.artifacts.image_set import ImageReader
from shared.artifacts.keys import evenly_spaced
from shared.artifacts.label_set import LabelReader, learned_labels
from shared.data.sampling import sample_keys
from shared.imaging.appearance import appearance
from shared.imaging.overlays import to_rgb8
from shared.imaging.pca import pca_rgb
from shared.models.backbones.vit import Encoder
from shared.models.config import ModelInput
from shared.models.load import load_model
from shared.models.segmentor import Segmentor
from shared.reporting.page import Page
from shared.stage.declaration import Result
from shared.system.devices import device
from shared.system.errors import UserError
from shared.system.log import log
from shared.system.progress import track

PANELS = 4
Panel = tuple[str, np.ndarray, np.ndarray, np.ndarray | None]
"""Key, picture, tokens, and where there is one the foreground probability."""


def run(stage: ExtractFeatures) -> Result:
    """One image at a time: memory does not grow with their number."""
    if stage.skip:
        with FeatureWriter(stage.features):
            pass
        return Result(skipped="the EM loop has converged")
    reader = ImageReader(stage.images)
    where = device()
    extractor = _extractor(stage, where)
    keys = learned_from(stage, reader, extractor.input)
    if isinstance(extractor, FilterExtractor):
        extractor.standard = measured(extractor, reader, keys, stage.shifts)
    else:
        extractor.correct = measure(extractor, reader, keys)
    panels: list[Panel] = []
    count = 0
    with FeatureWriter(stage.features) as writer:
        for key in track(keys, "extract_features", len(keys)):
            image = reader.read(key)
            size = image.shape[:2]
            _, stride, offset = extractor.geometry(size, stage.shifts)
            tokens, foreground = extractor.describe(image, stage.shifts)
            writer.add(key, tokens, stride=stride, size=size, offset=offset, probability=foreground)
            count += tokens.shape[0] * tokens.shape[1]
            if len(panels) < PANELS:
                panels.append((key, thumbnail(to_rgb8(image)), thumbnail(tokens), foreground))
    metrics = {"images": float(len(keys)), "tokens": float(count), "channels": float(extractor.channels)}
    return Result(metrics=metrics, page=_page(metrics, panels))


def learned_from(stage: ExtractFeatures, reader: ImageReader, given: ModelInput) -> list[str]:
    """Keys of the training images to embed, sorted: all, or a sample. Raises UserError where there are none."""
    keys = reader.keys("train")
    if not keys:
        raise UserError(f"--images: {reader.folder}: none of its {len(reader)} images is of the split train")

    def appearance_of(key: str) -> np.ndarray:
        image = reader.read(key)
        return appearance(image, given.normalisation.limits(image), given.normalisation)

    considered = evenly_spaced(keys, stage.max_images)
    areas = np.array([reader.pixel_count(key) for key in considered]) / given.downsample**2
    chosen = set(sample_keys(considered, areas, stage.max_megapixels * 1e6, appearance_of))
    if stage.use_labels:
        chosen |= set(learned_labels(LabelReader(stage.truth), set(keys), stage.use_labels))
    if len(chosen) < len(keys):
        log.info("%d of %d images are learned from: --max_images, --max_megapixels", len(chosen), len(keys))
    return sorted(chosen)


def _extractor(stage: ExtractFeatures, where: str) -> DenseExtractor:
    """What describes an image: the model's encoder, and where it is a segmentor all of it."""
    model = load_model(stage.model, Encoder, Segmentor)
    encoder = model.encoder if isinstance(model, Segmentor) else model
    if stage.tile <= 2 * stage.halo:
        raise UserError(f"--halo: {stage.halo} px on either side leave nothing of a tile of {stage.tile} px; lower it")
    if stage.layers > encoder.architecture.depth:
        raise UserError(f"--layers: {stage.layers}, but the model has {encoder.architecture.depth} blocks")
    extractor = (DenseExtractor if stage.descriptor == "model" else FilterExtractor)(
        encoder,
        tile=stage.tile,
        halo=stage.halo,
        batch_size=stage.batch_size,
        layers=stage.layers,
        device=where,
    )
    extractor.segmentor = model.to(where) if isinstance(model, Segmentor) else None
    return extractor


def thumbnail(plane: np.ndarray, max_side: int = 512) -> np.ndarray:
    """Pixels or tokens of (H, W, C) at a fixed step, so that neither side is longer than `max_side`."""
    step = -(-max(plane.shape[:2]) // max_side)
    return plane[::step, ::step].copy()


def _page(metrics: dict[str, float], panels: list[Panel]) -> Page:
    page = Page("extract_features")
    page.text(
        f"{metrics['images']:.0f} images, {metrics['tokens']:.0f} tokens of {metrics['channels']:.0f} features. "
        "In colour: the first three principal components, on axes common to the images shown."
    )
    colours = pca_rgb([tokens for _, _, tokens, _ in panels])
    for (key, picture, _, foreground), colour in zip(panels, colours, strict=True):
        row = [(picture, key), (enlarged(colour, picture.shape[1]), "features")]
        if foreground is not None:
            row.append((thumbnail(np.rint(foreground * 255).astype(np.uint8)), "the segmentor's foreground"))
        page.images(row)
    return page


def enlarged(colour: np.ndarray, width: int) -> np.ndarray:
    """Tokens as squares: (h, w, 3) repeated to about `width` px, as a whole multiple."""
    times = max(1, width // colour.shape[1])
    return colour.repeat(times, axis=0).repeat(times, axis=1)
