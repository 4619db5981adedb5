"""The model card of a segmentor."""

from components.train_segmentor.component import TrainSegmentor
from components.train_segmentor.labelled_crops import LabelledCrops
from shared.models.config import SegmentorConfig
from shared.training.checkpoint import History
from shared.training.history import first_and_last_loss


def model_card(
    stage: TrainSegmentor, steps: int, rate: float, config: SegmentorConfig, crops: LabelledCrops, history: History
) -> str:
    """Markdown: what it was trained on and how, and what goes in and comes out."""
    encoder, given, losses = config.architecture.encoder, config.input, first_and_last_loss(history)
    by_hand = len(crops.hand_labelled)
    others = len(crops.crops.keys) - by_hand
    origin = crops.labels.info.origin
    learned = f"{'pseudo-masks' if origin == 'pseudo' else 'label images'} of {others} images"
    learned += f" and hand-drawn labels of {by_hand} more" if by_hand else ""
    scale = f", {given.um_per_px:g} um per px in training" if given.um_per_px else ""
    return f"""# Segmentor on ViT {encoder.size}, patch {encoder.patch}

Instances of cells, learned from {learned}.

- Input: {given.channels} channels, each scaled so that its {given.normalisation.low:g} and \
{given.normalisation.high:g} percentiles become 0 and 1{scale}; height and width multiples of 16
- Output maps: {", ".join(config.maps)} (logits, pixel by pixel)
- Training: {steps} steps of {stage.batch_size} crops of {stage.crop} px, peak learning rate {rate:g}
- Loss: {losses["first_loss"]:.3f} at first, {losses["loss"]:.3f} at last
"""
