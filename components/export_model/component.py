"""Declaration of `export_model`."""

from typing import ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from shared.artifacts.kinds import ImageSet, LabelSet, Model
from shared.models.prediction_options import TilingOptions
from shared.stage.declaration import In, MaybeIn, Out, Stage


class ExportModel(TilingOptions, Stage):
    """Export a model to ONNX, and on a GPU to a TensorRT engine, and check each file against the weights.

    Each file predicts real images. Its raw output is compared with that of the weights, and what it finds with the
    truth where there is one, else with what the weights find. A file that is worse than the limits is deleted, or made
    again at a higher precision. The weights are copied in any case. A TensorRT engine takes batches of up to
    `batch_size` tiles.
    """

    image: ClassVar[str] = "export"

    images: In[ImageSet]
    """Images to compare on, those of the split test if there are any; others calibrate INT8."""
    model: In[Model]
    """An encoder, a segmentor, a classifier or a detector."""
    truth: MaybeIn[LabelSet]
    """Labels of the images. With them the files and the weights are scored alike: Dice and F1, accuracy and ECE, AP."""
    exported: Out[Model]
    """The model's own files; `model.onnx`, `model.int8.onnx`, `model.engine` (for this kind of GPU only); and
    `export.json`: input and output of the files, and how each compares with the weights. `speed.json` has their
    latency and throughput."""
    accepted: Out[bool]
    """Whether `model.onnx` agrees with the weights, and every other file that `always` asks for is there."""
    int8: Literal["auto", "never", "always"] = "auto"
    """Whether to write an ONNX file with 8-bit weights for CPUs. always: a refused file is a failed export."""
    tensorrt: Literal["auto", "never", "always"] = "auto"
    """Whether to build a TensorRT engine. auto: if there are a GPU and TensorRT."""
    precision: Literal["float32", "float16", "int8"] = "float16"
    """Lowest precision of the TensorRT engine. Where an engine is refused, the next higher precision is tried."""
    max_difference: PositiveFloat = 1e-3
    """Largest difference allowed for a float32 file: of any probability, of box corners as shares of a tile, of any
    feature in standard deviations."""
    tolerance: NonNegativeFloat = 0.5
    """Points (hundredths) by which a metric against the truth may be worse than that of the weights."""
    min_agreement: float = Field(0.98, ge=0, le=1)
    """Agreement with the weights required without a truth: Dice, F1 of instances, accuracy, AP, or cosine of features,
    where what the weights find is taken as the truth."""
    min_speedup: PositiveFloat = 1.4
    """Speed required of `model.int8.onnx` relative to `model.onnx`, by CPU time for a batch on this machine."""
    max_images: PositiveInt | Literal["auto"] = "auto"
    """Images to compare on, evenly spread over the set. auto: 8, and 512 for a classifier."""
    calibration_images: PositiveInt = 16
    """Images to calibrate INT8 on, evenly spread over those that are not compared on."""
