"""Declaration of `pretrain`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from shared.artifacts.kinds import ImageSet, Model
from shared.stage.declaration import External, In, Out, Stage


class Pretrain(Stage):
    """Train a vision transformer on the images without labels, by MAE or DINO.

    MAE: He et al. 2022, arXiv:2111.06377. DINO: Caron et al. 2021, arXiv:2104.14294, with iBOT's patch term,
    Zhou et al. 2022, arXiv:2111.07832.
    """

    image: ClassVar[str] = "torch"

    images: In[ImageSet]
    """Images to learn from, those of the split train."""
    encoder: Out[Model]
    """The encoder; its config holds architecture, channels and normalisation."""
    objective: Literal["auto", "mae", "dino", "none"] = "auto"
    """mae predicts masked patches. dino matches views with a momentum teacher; a step costs about five times as much.
    none keeps the initial encoder. auto: mae, but none with `weights`, because a short training at this learning rate
    may undo what they have learned."""
    size: Literal["nano", "tiny", "small", "base", "large"] = "nano"
    """Size of the transformer. All but nano have the shape of timm's `vit_SIZE`."""
    patch: Literal[4, 8, 16] = 8
    """Side of a patch, px. 4 is for images of single small cells, of about 64 px and less."""
    crop: int = Field(128, ge=32, multiple_of=16)
    """Side of a training crop, px; reduced where most of the images are smaller."""
    downsample: Literal["auto", "1", "2", "4"] = "auto"
    """Downsample the images by this factor for the network. auto: choose it by the size of the objects."""
    scale_jitter: float = Field(1.25, ge=1, le=4)
    """Crops show objects up to this factor larger or smaller than they are."""
    steps: PositiveInt = 200
    """Optimiser steps."""
    batch_size: PositiveInt = 32
    """Crops per step."""
    learning_rate: float = Field(1.5e-3, gt=0)
    """Peak learning rate, after warm-up and before cosine decay."""
    mask_ratio: float = Field(0.75, gt=0, lt=1)
    """Share of patches that MAE hides."""
    predict: Literal["texture", "pixels"] = "texture"
    """texture: the network also predicts the brightness, contrast and gradients of every patch, cf. MaskFeat, Wei et
    al. 2022, arXiv:2112.09133. Without it, cells that differ from their background in contrast alone are hardly
    recognised. pixels: mae or dino as published."""
    augment: bool = False
    """Show MAE crops that are rotated by any angle, of other intensities, out of focus and noisy; it predicts them
    clean. In any case crops are rotated by multiples of 90 degrees and mirrored; DINO's views always have all of
    these augmentations."""
    cache_mb: PositiveInt = 1024
    """MB of decoded images kept in memory; other images are decoded again for each use."""
    weights: Annotated[str, External] = ""
    """Path or uri of a published checkpoint to start from, .safetensors or weights-only .pth: a ViT of this size from
    timm, DINO, MAE, DINOv2 (with or without registers) or DINOv3; the last two from transformers as well. Patches of
    another size are resampled to `patch`. Empty: start from random weights."""
    weights_input: Literal["imagenet", "half", "unit"] = "imagenet"
    """Scaling of colours that the network of `weights` expects. imagenet: standardised by ImageNet's mean and standard
    deviation, as DINO, MAE, DINOv2 and DINOv3; half: -1 to 1, as timm's augreg; unit: 0 to 1, as encoders made here."""
    weights_from: Annotated[str, External] = ""
    """Path or uri of a Model artifact to start from. A segmentor is passed on unchanged, so that the EM loop continues
    from it and compares its rounds with it. Empty: start from random weights."""
    seed: NonNegativeInt = 0
    """Seed of weights, crops and masks."""

    def max_processes(self) -> int:
        """Return the crops of a batch, or 1 where nothing is trained."""
        return 1 if self.chosen_objective() == "none" else self.batch_size

    def chosen_objective(self) -> Literal["mae", "dino", "none"]:
        """Return `objective`, resolved where it is auto."""
        if self.objective == "auto":
            return "none" if self.weights else "mae"
        return self.objective
