"""Run a Model artifact of any kind by PyTorch, ONNX Runtime or TensorRT.

Declarations import this module, so it loads no numpy. `shared.models.runtimes.runtime.open_model` opens a model.
"""

from typing import Literal

Runtime = Literal["auto", "pytorch", "onnx", "onnx_int8", "tensorrt"]
"""What runs a model. auto: TensorRT on a GPU where the model has an engine, else ONNX Runtime on a CPU where it has an
ONNX file, else PyTorch."""
ONNX_FILE, INT8_FILE, ENGINE_FILE, EXPORT_FILE = "model.onnx", "model.int8.onnx", "model.engine", "export.json"
"""Files that `export_model` adds to a model."""
INPUT = "image"
"""Name of the input of an exported graph: normalised images (N, C, H, W) float32."""
