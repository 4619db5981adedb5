"""Compute dense features of the training images and, with a segmentor, their foreground probability."""

import numpy as np

from components.extract_features.component import ExtractFeatures
from components.extract_features.dense_extractor import DenseExtractor
from components.extract_features.filter_bank import FilterExtractor, estimate_standardisation
from components.extract_features.position_correction import estimate_correction
from shared.artifacts.feature_set import FeatureWriter
from shared.artifacts.image_set import ImageReader
from shared.imaging.overlays import to_rgb8
from shared.imaging.pca import pca_rgb
from shared.models.backbones.vit import Encoder
from shared.models.load import load_model
from shared.models.segmentor import Segmentor
from shared.reporting.page import Page
from shared.stage.declaration import Result
from shared.system.devices import device
from shared.system.errors import UserError
from shared.system.progress import track

_PANELS = 4
"""Images that are shown."""
Panel = tuple[str, np.ndarray, np.ndarray, np.ndarray | None]
"""Key, picture, tokens, and the foreground probability, if there is one."""


def run(stage: ExtractFeatures) -> Result:
    """Describe one image at a time, so that memory does not grow with their number."""
    if stage.skip:
        with FeatureWriter(stage.features):
            pass
        return Result(skipped="the EM loop has ended")
    reader = ImageReader(stage.images)
    where = device()
    extractor = _extractor(stage, where)
    keys = reader.keys("train")
    if not keys:
        raise UserError(f"--images: none of the {len(reader)} images is of the split train; add some to it")
    if isinstance(extractor, FilterExtractor):
        extractor.standardisation = estimate_standardisation(extractor, reader, keys, stage.shifts)
    else:
        extractor.correct = estimate_correction(extractor, reader, keys)
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
            if len(panels) < _PANELS:
                panels.append((key, _subsampled(to_rgb8(image)), _subsampled(tokens), foreground))
    metrics = {"images": float(len(keys)), "tokens": float(count), "channels": float(extractor.channels)}
    return Result(metrics=metrics, page=_page(metrics, panels))


def _extractor(stage: ExtractFeatures, where: str) -> DenseExtractor:
    """Load the model: an encoder, or a segmentor that also gives the foreground."""
    model = load_model(stage.model, Encoder, Segmentor)
    encoder = model.encoder if isinstance(model, Segmentor) else model
    if stage.tile <= 2 * stage.halo:
        raise UserError(f"--halo: {stage.halo} px on each side leave no core of a tile of {stage.tile} px; lower it")
    if stage.layers > encoder.architecture.depth:
        raise UserError(f"--layers: {stage.layers} exceeds the model's {encoder.architecture.depth} blocks; lower it")
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


def _subsampled(image: np.ndarray, max_side: int = 512) -> np.ndarray:
    """Pixels or tokens of (H, W, ...) at a fixed step: `max_side` on a side at most."""
    step = -(-max(image.shape[:2]) // max_side)
    return image[::step, ::step].copy()


def _page(metrics: dict[str, float], panels: list[Panel]) -> Page:
    page = Page("extract_features")
    page.text(
        f"{metrics['images']:.0f} images, {metrics['tokens']:.0f} tokens of {metrics['channels']:.0f} features. "
        "Colours show the first three principal components, on axes common to these images."
    )
    colours = pca_rgb([tokens for _, _, tokens, _ in panels])
    for (key, picture, _, foreground), colour in zip(panels, colours, strict=True):
        row = [(picture, key), (_enlarged(colour, picture.shape[1]), "features")]
        if foreground is not None:
            row.append(
                (_subsampled(np.rint(foreground * 255).astype(np.uint8)), "foreground probability of the segmentor")
            )
        page.images(row)
    return page


def _enlarged(colour: np.ndarray, width: int) -> np.ndarray:
    """Show tokens as squares: (h, w, 3), each repeated to about `width` px in all."""
    times = max(1, width // colour.shape[1])
    return colour.repeat(times, axis=0).repeat(times, axis=1)
