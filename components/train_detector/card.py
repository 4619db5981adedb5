"""The model card of a detector."""

from components.train_detector.component import TrainDetector
from components.train_detector.labelled_images import LabelledImages
from shared.models.config import DetectorConfig, VitArchitecture


def model_card(
    stage: TrainDetector, config: DetectorConfig, labelled: LabelledImages, metrics: dict[str, float], steps: int
) -> str:
    """Markdown that states the training, the input, the output and the scores; steps: that were done."""
    part, given, learned = config.architecture, config.input, labelled.counts(labelled.train)
    vit = isinstance(part.backbone, VitArchitecture)
    backbone = f"ViT {part.backbone.size}, patch {part.backbone.patch}" if vit else f"ResNet {part.backbone.depth}"  # type: ignore[union-attr]
    classes = ", ".join(f"{name} ({learned[name]} boxes)" for name in part.classes)
    unlabelled = f", and of {stage.unlabelled_batch} crops without labels" if stage.unlabelled else ""
    return f"""# Detector, RT-DETRv2 on {backbone}

Finds {classes}, learned from {labelled.origin} of {len(labelled.train)} images.

- Input: {given.channels} channels, each scaled so that its {given.normalisation.low:g} and \
{given.normalisation.high:g} percentiles become 0 and 1; downsampled by {given.downsample}; tiles of \
{given.crop_px} px after that
- Output: for each of {part.queries} queries a score of each class, and a box
- Training: {steps} steps of {stage.batch_size} crops{unlabelled}, peak learning rate {stage.learning_rate:g}; the \
weights of step {metrics["best_step"]:.0f}
- Held-out images: {len(labelled.valid)}; {_scores(metrics)}
- Score threshold: {config.postprocessing.score_threshold:g}, of the highest F1 on the held-out images; \
{_suppression(config)}
"""


def _scores(metrics: dict[str, float]) -> str:
    names = {"ap50": "AP50", "ap": "AP", "f1": "F1"}
    return ", ".join(f"{title} {metrics[name]:.3f}" for name, title in names.items() if name in metrics)


def _suppression(config: DetectorConfig) -> str:
    iou = config.postprocessing.nms_iou
    if iou is None:
        return "boxes that overlap are all kept"
    return f"of two boxes of a class with an IoU above {iou:g} the better one is kept"
