"""Declaration of `export_model`."""

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from shared.artifacts.kinds import ImageSet, Model
from shared.models.prediction_options import TilingOptions
from shared.stage.declaration import In, Out, Stage


class ExportModel(TilingOptions, Stage):
    """Export a model to ONNX, and on a GPU to a TensorRT engine, and check each file against the weights.

    Each file predicts real images. Its output and, for a segmentor, its instances are compared with those of the
    weights; a file that differs is deleted. The weights are copied in any case. A TensorRT engine takes batches of up
    to `batch_size` tiles.
    """

    image: ClassVar[str] = "export"

    images: In[ImageSet]
    """Images to compare on, those of the split test if there are any."""
    model: In[Model]
    """A segmentor or an encoder."""
    exported: Out[Model]
    """The model's own files, `model.onnx`, `model.engine` (for this kind of GPU only), and `export.json`: input and
    output of the exported files, and how each compares with the weights."""
    accepted: Out[bool]
    """Whether every exported file agrees with the weights."""
    tensorrt: Literal["auto", "never", "always"] = "auto"
    """Whether to build a TensorRT engine. auto: if there are a GPU and TensorRT."""
    precision: Literal["float32", "float16"] = "float16"
    """Precision of the TensorRT engine. ONNX is float32."""
    max_difference: float = Field(0.01, gt=0)
    """Largest difference allowed for a float32 file, of any probability, or of any feature in standard deviations."""
    min_dice: float = Field(0.99, ge=0, le=1)
    """Dice required between the foregrounds of file and weights, pixels pooled over the images."""
    min_f1: float = Field(0.98, ge=0, le=1)
    """F1 at IoU 0.5 required between the instances of file and weights."""
    max_images: PositiveInt = 8
    """Images to compare on, evenly spread over the set."""
