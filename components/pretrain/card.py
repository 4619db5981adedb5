"""The model card of a trained encoder."""

from components.pretrain.component import Pretrain
from shared.models.config import EncoderConfig
from shared.training.history import History, first_and_last_loss


def training_card(stage: Pretrain, config: EncoderConfig, images: int, history: History) -> str:
    """Markdown that states the training, the architecture and the input; images: number of training images."""
    losses, vit, normalisation = first_and_last_loss(history), config.architecture, config.input.normalisation
    start = stage.weights or stage.weights_from or "random weights"
    return f"""# Encoder, ViT {vit.size}, patch {vit.patch}

Trained without labels by {stage.chosen_objective().upper()} on {images} images, from {start}.

- Architecture: width {vit.width}, depth {vit.depth}, heads {vit.heads}, {config.input.channels} channels
- Input: every channel scaled so that its {normalisation.low:g} and {normalisation.high:g} percentiles become 0 and 1
- Training: {stage.steps} steps of {stage.batch_size} crops of {config.input.crop_px} px
- Peak learning rate: {stage.learning_rate:g}
- Loss: {losses["first_loss"]:.3f} in the first tenth of the steps, {losses["loss"]:.3f} in the last
- Files: `model.safetensors` (parameter names as in timm's VisionTransformer), `config.json`
"""
