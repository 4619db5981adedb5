"""Declaration of `export_model`."""

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from shared.artifacts.kinds import ImageSet, Model
from shared.stage.declaration import In, Out, Stage


class ExportModel(Stage):
    """Export a model to ONNX, and on a GPU to a TensorRT engine, and check each file against the weights.

    Each file predicts real images; its output and, of a segmentor, its instances are compared with those of the
    weights. A file that differs is deleted. The weights are copied in any case.
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
    """Whether every exported file agreed with the weights."""
    tensorrt: Literal["auto", "never", "always"] = "auto"
    """auto: where there are a GPU and TensorRT."""
    precision: Literal["float32", "float16"] = "float16"
    """What TensorRT computes in. ONNX is float32."""
    max_difference: float = Field(0.01, gt=0)
    """Of a form in float32, anywhere: of a probability, or of a feature in its standard deviations."""
    min_dice: float = Field(0.99, ge=0, le=1)
    """Dice of the form's foreground and the original's, pixels pooled over the images."""
    min_f1: float = Field(0.98, ge=0, le=1)
    """F1 of the form's cells at IoU 0.5, the original's as truth."""
    max_images: PositiveInt = 8
    """Images that are compared, evenly spread."""
    tile: int = Field(128, ge=64, multiple_of=16)
    """px on the side of a tile as the network sees it, halo included; up to a quarter more where that fits an image."""
    batch_size: PositiveInt = 16
    """Tiles per forward pass; TensorRT takes no more."""
