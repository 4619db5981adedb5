"""Build a TensorRT engine (https://docs.nvidia.com/deeplearning/tensorrt) from ONNX for this machine's GPU, and run it.

The Python bindings are in the lock file, the libraries that they load only in the image `export`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.export_model.exportable import INPUT
from shared.imaging.tiling import MAX_TILE_GROWTH
from shared.models.network import Network
from shared.system.errors import ArtifactError, UserError

WORKSPACE_BYTES = 4 << 30
"""Bytes of scratch memory for a layer."""


def missing_requirement(device: str) -> str:
    """Name what TensorRT lacks on `device`; empty if it can run."""
    if not device.startswith("cuda"):
        return "there is no GPU"
    try:
        import tensorrt_bindings  # noqa: F401
    except ImportError as error:
        return f"TensorRT's libraries are missing ({error})"
    return ""


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


def engine_network(path: Path, output: str, device: str) -> Network:
    """Load the engine at `path` as a function of arrays. Raises ArtifactError if it is not for this GPU."""
    import tensorrt_bindings as trt

    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    engine: Any = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise ArtifactError(
            f"{path}: not an engine for this GPU and TensorRT version; export the model again on this machine"
        )
    context = engine.create_execution_context()

    def network(tiles: np.ndarray) -> tuple[np.ndarray, ...]:
        given = torch.from_numpy(tiles).to(device)
        context.set_input_shape(INPUT, tuple(given.shape))
        result = torch.empty(tuple(context.get_tensor_shape(output)), device=device)
        context.set_tensor_address(INPUT, given.data_ptr())
        context.set_tensor_address(output, result.data_ptr())
        stream = torch.cuda.current_stream(result.device)
        if not context.execute_async_v3(stream.cuda_stream):
            raise ArtifactError(f"{path}: the engine failed on tiles {tiles.shape}")
        stream.synchronize()
        return (np.asarray(result.cpu().numpy()),)

    return network
