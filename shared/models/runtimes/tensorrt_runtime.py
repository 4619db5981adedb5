"""Run TensorRT engines (https://docs.nvidia.com/deeplearning/tensorrt) on the GPU that they were built for.

Unverified: written against TensorRT's Python bindings and type-checked, but not yet run on a GPU. The bindings are in
the image `export`, and so are the libraries that they load.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from shared.models.network import Network
from shared.models.runtimes import INPUT
from shared.system.errors import ArtifactError


def missing_requirement(device: str) -> str:
    """Name what TensorRT lacks on `device`; empty if it can run."""
    if not device.startswith("cuda"):
        return "there is no GPU"
    try:
        import tensorrt_bindings  # noqa: F401
    except ImportError as error:
        return f"TensorRT's libraries are missing ({error})"
    return ""


def engine_network(path: Path, outputs: tuple[str, ...], device: str) -> Network:
    """Load the engine at `path` as a function of arrays; outputs: names of its outputs, in their order.

    Batches larger than the engine's are cut. Raises ArtifactError if it is not for this GPU.
    """
    import tensorrt_bindings as trt

    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    engine: Any = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise ArtifactError(
            f"{path}: not an engine for this GPU and TensorRT version; export the model again on this machine"
        )
    context = engine.create_execution_context()
    smallest, _, largest = engine.get_tensor_profile_shape(INPUT, 0)

    def batch(images: np.ndarray) -> list[np.ndarray]:
        given = torch.from_numpy(images).to(device)
        if not context.set_input_shape(INPUT, tuple(given.shape)):
            raise ArtifactError(f"{path}: takes tiles of {smallest} to {largest}, not {images.shape}; change --tile")
        results = [torch.empty(tuple(context.get_tensor_shape(name)), device=device) for name in outputs]
        context.set_tensor_address(INPUT, given.data_ptr())
        for name, result in zip(outputs, results, strict=True):
            context.set_tensor_address(name, result.data_ptr())
        stream = torch.cuda.current_stream(given.device)
        if not context.execute_async_v3(stream.cuda_stream):
            raise ArtifactError(f"{path}: the engine failed on tiles {images.shape}")
        stream.synchronize()
        return [np.asarray(result.cpu().numpy()) for result in results]

    def network(images: np.ndarray) -> tuple[np.ndarray, ...]:
        step = int(largest[0])
        parts = [batch(images[first : first + step]) for first in range(0, len(images), step)]
        return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))

    return network
