"""Build a TensorRT engine (https://docs.nvidia.com/deeplearning/tensorrt) from ONNX for this machine's GPU.

Unverified: written against TensorRT's Python bindings and type-checked, but not yet run on a GPU. The bindings are in
the lock file, the libraries that they load only in the image `export`.
"""

from pathlib import Path
from typing import Literal

from components.export_model.exportable import Exportable
from shared.imaging.tiling import MAX_TILE_GROWTH
from shared.models.runtimes import INPUT
from shared.system.errors import UserError

Precision = Literal["float32", "float16", "int8"]
WORKSPACE_BYTES = 4 << 30
"""Bytes of scratch memory for a layer."""


def precisions_from(lowest: Precision) -> tuple[Precision, ...]:
    """Precisions to try, lowest first."""
    every: tuple[Precision, ...] = ("int8", "float16", "float32")
    return every[every.index(lowest) :]


def write_engine(subject: Exportable, onnx: Path, path: Path, *, batch: int, precision: Precision) -> None:
    """Build an engine for batches of up to `batch` tiles from the file `onnx`, and write it to `path`.

    onnx: for int8 a file with nodes that quantise symmetrically, so that calibration is ONNX Runtime's and TensorRT
    keeps its scales; what it leaves in floating point is float16. Raises UserError if TensorRT cannot build it.
    """
    import tensorrt_bindings as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx.read_bytes()):
        raise UserError(f"--tensorrt: TensorRT cannot read the model ({parser.get_error(0)}); set it to never")
    settings = builder.create_builder_config()
    settings.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    if precision == "float32":
        settings.clear_flag(trt.BuilderFlag.TF32)  # on by default; it keeps 10 bits of a product's mantissa
    else:
        settings.set_flag(trt.BuilderFlag.FP16)
    if precision == "int8":
        settings.set_flag(trt.BuilderFlag.INT8)
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, *profile_shapes(subject, batch))
    settings.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, settings)
    if plan is None:
        raise UserError("--tensorrt: TensorRT cannot build an engine of this model; set it to never")
    path.write_bytes(bytes(plan))


def profile_shapes(subject: Exportable, batch: int) -> list[tuple[int, int, int, int]]:
    """Smallest, most frequent and largest input (N, C, H, W) that the engine takes."""
    channels, tile, multiple = subject.metadata.channels, subject.metadata.tile, subject.metadata.multiple
    if multiple is None:
        smallest = largest = tile
    else:
        smallest = tile if subject.kind == "detector" else multiple  # smaller ones have fewer positions than queries
        largest = max(tile, int(MAX_TILE_GROWTH * tile) // multiple * multiple)
    sides = ((1, smallest), (batch, tile), (batch, largest))
    return [(count, channels, side, side) for count, side in sides]
