"""Build a TensorRT engine (https://docs.nvidia.com/deeplearning/tensorrt) from ONNX for this machine's GPU.

The Python bindings are in the lock file, the libraries that they load only in the image `export`.
"""

from pathlib import Path

from shared.imaging.tiling import MAX_TILE_GROWTH
from shared.models.runtimes import INPUT
from shared.system.errors import UserError

WORKSPACE_BYTES = 4 << 30
"""Bytes of scratch memory for a layer."""


def write_engine(onnx: Path, path: Path, *, channels: int, multiple: int, side: int, batch: int, half: bool) -> None:
    """Build an engine for tiles of `multiple` to 1.25 `side` px, up to `batch` at once, from the file `onnx`.

    half: compute in float16 where that is faster. Raises UserError if TensorRT cannot build the engine.
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
    if half:
        settings.set_flag(trt.BuilderFlag.FP16)
    side = -(-side // multiple) * multiple
    largest = max(side, int(MAX_TILE_GROWTH * side) // multiple * multiple)
    profile = builder.create_optimization_profile()
    shapes = [(1, channels, multiple, multiple), (batch, channels, side, side), (batch, channels, largest, largest)]
    profile.set_shape(INPUT, *shapes)
    settings.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, settings)
    if plan is None:
        raise UserError("--tensorrt: TensorRT cannot build an engine of this model; set it to never")
    path.write_bytes(bytes(plan))
