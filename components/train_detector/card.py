"""The model card of a detector."""

from components.train_detector.component import TrainDetector
from components.train_detector.labelled_images import LabelledImages
from components.train_detector.validation import Predictions
from shared.models.config import DetectorConfig, VitArchitecture


def model_card(
    stage: TrainDetector,
    config: DetectorConfig,
    labelled: LabelledImages,
    predictions: Predictions,
    metrics: dict[str, float],
) -> str:
    """Markdown that states the training, the input, the output and the scores."""
    part, given, learned = config.architecture, config.input, labelled.counts(labelled.train)
    vit = isinstance(part.backbone, VitArchitecture)
    backbone = f"ViT {part.backbone.size}, patch {part.backbone.patch}" if vit else f"ResNet {part.backbone.depth}"  # type: ignore[union-attr]
    classes = ", ".join(f"{name} ({learned[name]} boxes)" for name in part.classes)
    scored = "Held-out images" if labelled.held_out else "No image is held out; on the training images"
    unlabelled = f", and of {stage.unlabelled_batch} crops without labels" if stage.unlabelled else ""
    return f"""# Detector, RT-DETRv2 on {backbone}

Finds {classes}, learned from {labelled.origin} of {len(labelled.train)} images.

- Input: {given.channels} channels, each scaled so that its {given.normalisation.low:g} and \
{given.normalisation.high:g} percentiles become 0 and 1; downsampled by {given.downsample}; tiles of \
{given.crop_px} px after that
- Output: for each of {part.queries} queries a score of each class, and a box
- Training: {metrics["steps"]:.0f} steps of {stage.batch_size} crops{unlabelled}, peak learning rate \
{stage.learning_rate:g}; the weights of step {metrics["best_step"]:.0f}
- {scored}: {len(labelled.valid)}; {_scores(predictions)}
- Score threshold: {config.postprocessing.score_threshold:g}, of the highest F1 on them; \
{_suppression(config)}
"""


def _scores(predictions: Predictions) -> str:
    names, metrics = {"ap50": "AP50", "ap": "AP", "f1": "F1"}, predictions.metrics | {"f1": predictions.threshold[1]}
    return ", ".join(f"{title} {metrics[name]:.3f}" for name, title in names.items() if name in metrics)


def _suppression(config: DetectorConfig) -> str:
    iou = config.postprocessing.nms_iou
    if iou is None:
        return "boxes that overlap are all kept"
    return f"of two boxes of a class with an IoU above {iou:g} the better one is kept"
