"""Quantise an ONNX file to 8 bits for CPUs with ONNX Runtime, calibrated on images.

Linear layers are quantised dynamically: the range of their input is found in every pass. Convolutions are quantised
statically: the ranges are those of the calibration images. Weights have a scale for each output channel. On a CPU with
8-bit dot products this is faster than static quantisation of both, and narrow convolutions are faster in float32
(RESULTS.md, "INT8"). https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from components.export_model.exportable import Exportable
from components.export_model.onnx_export import write_model
from shared.models.runtimes import INPUT

CALIBRATION_TILES = 32


@dataclass(frozen=True)
class Quantisation:
    """Which layers are quantised, and how."""

    name: str
    """For people."""
    linear: Literal["dynamic", "static"]
    min_weights: int | None
    """Convolutions of at least this many input channels times output channels; None: no convolution."""
    symmetric: bool = False
    """Whether activations are int8 around 0, as TensorRT needs, instead of uint8."""


FOR_CPU = (
    Quantisation("dynamic linear layers, static convolutions", "dynamic", 256),
    Quantisation("dynamic linear layers, static wide convolutions", "dynamic", 4096),
    Quantisation("dynamic linear layers", "dynamic", None),
    Quantisation("static linear layers and convolutions", "static", 256),
)
"""Tried in this order until one is accepted: the first one is the fastest as a rule, later ones are more exact."""
FOR_TENSORRT = Quantisation("static linear layers and convolutions", "static", 1, symmetric=True)


def write_int8(
    subject: Exportable, source: Path, path: Path, tiles: Sequence[np.ndarray], quantisation: Quantisation
) -> None:
    """Quantise the float32 file `source` and write it to `path`; equal files and tiles give equal bytes.

    tiles: normalised, (1, C, H, W) float32 each, to calibrate on.
    """
    import onnx
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    logging.getLogger().addFilter(_is_no_advice)
    with tempfile.TemporaryDirectory() as folder:
        current, dynamic, static = (str(Path(folder) / f"{name}.onnx") for name in ("float", "dynamic", "static"))
        quant_pre_process(str(source), current, skip_symbolic_shape=True)
        graph = onnx.load(current).graph
        linear, convolutions = _linear_layers(graph), _convolutions(graph, quantisation.min_weights)
        if quantisation.linear == "dynamic" and linear:
            quantize_dynamic(current, dynamic, per_channel=True, nodes_to_quantize=linear)
            current = dynamic
        chosen = convolutions + (linear if quantisation.linear == "static" else [])
        if chosen:
            _quantise_statically(current, static, chosen, tiles, quantisation.symmetric)
            current = static
        model = onnx.load(current)
    logging.getLogger().removeFilter(_is_no_advice)
    write_model(model, subject, "int8", path)


def _is_no_advice(record: logging.LogRecord) -> bool:
    """ONNX Runtime advises to prepare a model, which is done, each time it is called."""
    return "pre-processing before quantization" not in record.getMessage()


def _linear_layers(graph: Any) -> list[str]:
    """Names of the products with a constant matrix."""
    constants = {tensor.name for tensor in graph.initializer}
    return [node.name for node in graph.node if node.op_type in ("MatMul", "Gemm") and node.input[1] in constants]


def _convolutions(graph: Any, min_weights: int | None) -> list[str]:
    sizes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    if min_weights is None:
        return []
    return [
        node.name
        for node in graph.node
        if node.op_type == "Conv" and node.input[1] in sizes and np.prod(sizes[node.input[1]][:2]) >= min_weights
    ]


def _quantise_statically(
    source: str, target: str, nodes: list[str], tiles: Sequence[np.ndarray], symmetric: bool
) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Tiles(CalibrationDataReader):
        """One tile after another."""

        def __init__(self) -> None:
            self.rest: Iterator[np.ndarray] = iter(tiles)

        def get_next(self) -> dict[str, np.ndarray] | None:
            """The next tile as an input; None after the last."""
            tile = next(self.rest, None)
            return None if tile is None else {INPUT: tile}

    quantize_static(
        source,
        target,
        Tiles(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        weight_type=QuantType.QInt8,
        activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
        nodes_to_quantize=nodes,
        extra_options={"ActivationSymmetric": symmetric, "WeightSymmetric": True},
    )
