"""The model card of a segmentor."""

from components.train_segmentor.component import TrainSegmentor
from components.train_segmentor.labelled_crops import LabelledCrops
from components.train_segmentor.plan import Plan
from shared.models.config import SegmentorConfig
from shared.training.history import History, first_and_last_loss


def model_card(
    stage: TrainSegmentor, plan: Plan, config: SegmentorConfig, crops: LabelledCrops, history: History
) -> str:
    """Markdown that states the training, the input and the output."""
    encoder, given, losses = config.architecture.encoder, config.input, first_and_last_loss(history)
    scale = f", {given.um_per_px:g} um per px in training" if given.um_per_px else ""
    return f"""# Segmentor on ViT {encoder.size}, patch {encoder.patch}

Cell instances, learned from {_labels(crops)}.

- Input: {given.channels} channels, each scaled so that its {given.normalisation.low:g} and \
{given.normalisation.high:g} percentiles become 0 and 1{scale}; height and width multiples of 16
- Output maps: {", ".join(config.maps)} (logits of every pixel)
- Training: {plan.steps} steps of {stage.batch_size} crops of {stage.crop} px, peak learning rate {plan.rate:g}
- Loss: {losses["first_loss"]:.3f} in the first tenth of the steps, {losses["loss"]:.3f} in the last
"""


def _labels(crops: LabelledCrops) -> str:
    by_hand = len(crops.hand_labelled)
    kind = "pseudo-masks" if crops.labels.info.origin == "pseudo" else "label images"
    text = f"{kind} of {len(crops.crops.keys) - by_hand} images"
    return text + (f" and hand-labelled masks of {by_hand} more" if by_hand else "")
