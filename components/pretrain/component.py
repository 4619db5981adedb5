"""Declaration of `pretrain`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from shared.artifacts.kinds import ImageSet, Model
from shared.stage.declaration import External, In, Out, Stage


class Pretrain(Stage):
    """Self-supervised training of a vision transformer on the images, by MAE or DINO.

    MAE: He et al. 2022, arXiv:2111.06377. DINO: Caron et al. 2021, arXiv:2104.14294, with iBOT's patch term,
    Zhou et al. 2022, arXiv:2111.07832.
    """

    image: ClassVar[str] = "torch"

    images: In[ImageSet]
    """Images to learn from, those of the split train."""
    encoder: Out[Model]
    """The encoder, kind encoder; its config holds architecture, channels and normalisation."""
    objective: Literal["auto", "mae", "dino", "none"] = "auto"
    """mae predicts masked patches, dino matches views with a momentum teacher; a step of dino costs about five
    times as much. none: the encoder stays as it starts. auto: mae, but none with `weights`: a short training at this
    rate may undo what they have learned."""
    size: Literal["nano", "tiny", "small", "base", "large"] = "nano"
    """Size of the transformer. All but nano have the shape of timm's `vit_SIZE`."""
    patch: Literal[8, 16] = 8
    """px on the side of a patch."""
    crop: int = Field(128, ge=32, multiple_of=16)
    """px on the side of a training crop."""
    downsample: Literal["auto", "1", "2", "4"] = "auto"
    """The network sees the images made smaller by this factor. auto: chosen by the size of the objects."""
    scale_jitter: float = Field(1.25, ge=1, le=4)
    """Crops show objects up to so many times larger or smaller than they are."""
    steps: PositiveInt = 200
    """Optimiser steps."""
    batch_size: PositiveInt = 32
    """Crops a step."""
    learning_rate: float = Field(1.5e-3, gt=0)
    """Peak learning rate, after warm-up and before cosine decay."""
    mask_ratio: float = Field(0.75, gt=0, lt=1)
    """Share of patches that MAE hides."""
    predict: Literal["texture", "pixels"] = "texture"
    """texture: beside its objective, the network tells of every patch its brightness, contrast and gradients, cf.
    MaskFeat, Wei et al. 2022, arXiv:2112.09133. Cells that differ from their background in contrast alone are hardly
    seen without it. pixels: mae or dino as their authors have them."""
    augment: bool = False
    """MAE sees crops turned by any angle, of other intensities, out of focus and noisy, and predicts them clean. Crops
    are turned by right angles and mirrored in any case, and what DINO compares always is all of this."""
    cache_mb: PositiveInt = 1024
    """MB of decoded images kept in memory; what does not fit is decoded again."""
    weights: Annotated[str, External] = ""
    """Path or uri of a foreign checkpoint to start from, .safetensors or weights-only .pth: a ViT of this size from
    timm, DINO, MAE, DINOv2 (with registers or without) or DINOv3; the last two from transformers as well. Its patches
    may be of another size, they are resampled to `patch`. Empty: from scratch."""
    weights_input: Literal["imagenet", "half", "unit"] = "imagenet"
    """What the network of `weights` expects of colours. imagenet: less ImageNet's mean, by its standard deviation, as
    DINO, MAE, DINOv2 and DINOv3; half: -1 to 1, as timm's augreg; unit: 0 to 1, as the encoders made here."""
    weights_from: Annotated[str, External] = ""
    """Path or uri of an encoder artifact to start from. Of a segmentor: it is passed on as it is, so that the loop
    goes on from it and is measured against it. Empty: from scratch."""
    seed: NonNegativeInt = 0
    """Of weights, crops and masks."""

    def max_processes(self) -> int:
        """As many as there are crops in a batch; one where there is nothing to train."""
        return 1 if self.chosen_objective() == "none" else self.batch_size

    def chosen_objective(self) -> Literal["mae", "dino", "none"]:
        """`objective`, decided where it is auto."""
        if self.objective == "auto":
            return "none" if self.weights else "mae"
        return self.objective
