"""Declaration of `export_model`."""

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from shared.artifacts.kinds import ImageSet, Model
from shared.stage.declaration import In, Out, Stage


class ExportModel(Stage):
    """Write a model as ONNX, on a GPU as a TensorRT engine as well, and let out only what does as the original does.

    Each form predicts real images; its output and, of a segmentor, its cells are compared with those of the weights.
    A form that differs is deleted. The weights are handed on in any case.
    """

    image: ClassVar[str] = "export"

    images: In[ImageSet]
    """Images to compare on, those of the split test where there are some."""
    model: In[Model]
    """A segmentor or an encoder."""
    exported: Out[Model]
    """The model's own files, `model.onnx`, `model.engine` (for this kind of GPU alone), and `export.json`: what the
    forms take and give, and how they compared."""
    accepted: Out[bool]
    """Whether every form that was made did as the original does."""
    tensorrt: Literal["auto", "never", "always"] = "auto"
    """auto: where there are a GPU and TensorRT."""
    precision: Literal["float32", "float16"] = "float16"
    """What TensorRT computes in. ONNX is float32."""
    largest_difference: float = Field(0.01, gt=0)
    """Of a form in float32, anywhere: of a probability, or of a feature in its standard deviations."""
    least_dice: float = Field(0.99, ge=0, le=1)
    """Dice of the form's foreground and the original's, pixels pooled over the images."""
    least_f1: float = Field(0.98, ge=0, le=1)
    """F1 of the form's cells at IoU 0.5, the original's as truth."""
    most_images: PositiveInt = 8
    """Images that are compared, evenly spread."""
    tile: int = Field(128, ge=64, multiple_of=16)
    """px on the side of a tile as the network sees it, halo included; up to a quarter more where that fits an image."""
    batch_size: PositiveInt = 16
    """Tiles per forward pass; TensorRT takes no more."""
