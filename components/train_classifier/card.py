"""The model card of a classifier."""

from components.train_classifier.component import TrainClassifier
from components.train_classifier.splits import LabelledKeys
from shared.imaging.normalise import Normalisation
from shared.models.config import ClassifierConfig, ModelInput

_TUNED = {"all": "all blocks", "last": "the last blocks", "none": "the last layer alone"}


def model_card(stage: TrainClassifier, config: ClassifierConfig, keys: LabelledKeys, metrics: dict[str, float]) -> str:
    """Markdown that states the training, the input, the output, and how good it is."""
    vit, given, settings = config.architecture.encoder, config.input, config.postprocessing
    scale = f", {given.um_per_px:g} um per px in training" if given.um_per_px else ""
    return f"""# Classifier on ViT {vit.size}, patch {vit.patch}

Classes: {", ".join(keys.classes)}.

- Input: {given.channels} channels, each scaled so that {_limits(given.normalisation)} become 0 and 1{scale}; \
{_fit(given)} {given.crop_px} x {given.crop_px} px
- Output: probability of each class, at the temperature {settings.temperature:g}; distance from the training images
- Training: {len(keys.train)} images, at most {stage.steps} steps of {stage.batch_size}, {_TUNED[stage.tune]} trained
- Calibration: {len(keys.calibration)} images, {", ".join(str(len(scores)) for scores in settings.calibration)} of the \
classes
{_quality(metrics)}"""


def _limits(normalisation: Normalisation) -> str:
    """What becomes 0 and 1."""
    if normalisation.fixed:
        return ", ".join(f"{low:g} and {high:g}" for low, high in normalisation.fixed) + " (by channel)"
    return f"its {normalisation.low:g} and {normalisation.high:g} percentiles"


def _fit(given: ModelInput) -> str:
    """What is done to an image before it has the network's size."""
    if given.window_px is None:
        return "resized to"
    return f"centred in {given.window_px} x {given.window_px} px, which are resized to"


def _quality(metrics: dict[str, float]) -> str:
    """A line for each split that was not learned from."""
    names = ("accuracy", "balanced_accuracy", "auroc", "average_precision", "ece")
    lines = []
    for split in ("val", "test"):
        values = [f"{name} {metrics[key]:.4f}" for name in names if (key := f"{split}_{name}") in metrics]
        if values:
            lines.append(f"- {split}: {', '.join(values)}\n")
    return "".join(lines)
