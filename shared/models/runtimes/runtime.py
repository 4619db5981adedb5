"""Open a Model artifact of any kind with what runs it.

>>> model = open_model(folder, runtime="auto", device="cpu")
>>> model.config.kind, model.runtime
('segmentor', 'onnx')
>>> (maps,) = model.network(tiles)
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.models.config import ClassifierConfig, DetectorConfig, EncoderConfig, SegmentorConfig
from shared.models.files import load_config
from shared.models.network import Network
from shared.models.runtimes import ENGINE_FILE, EXPORT_FILE, INT8_FILE, ONNX_FILE, Runtime
from shared.models.runtimes.metadata import GraphMetadata
from shared.models.runtimes.onnx_runtime import open_session, session_metadata, session_network
from shared.models.runtimes.tensorrt_runtime import engine_network, missing_requirement
from shared.system.errors import ArtifactError, UserError

NetworkConfig = EncoderConfig | SegmentorConfig | ClassifierConfig | DetectorConfig
_FILES: dict[Runtime, str] = {"onnx": ONNX_FILE, "onnx_int8": INT8_FILE, "tensorrt": ENGINE_FILE}
"""The file that a runtime needs besides the model's own."""


@dataclass(frozen=True)
class OpenModel:
    """A model, ready to be applied."""

    config: NetworkConfig
    network: Network
    """Normalised images (N, C, H, W) float32 -> the outputs of the kind, see `shared.models.network`."""
    runtime: Runtime
    """What runs it, never auto."""
    device: str
    """Where it runs: cpu, cuda, cuda:1."""
    metadata: GraphMetadata | None = None
    """Of the exported file; None for PyTorch."""


def open_model(folder: Path, *, runtime: Runtime = "auto", device: str = "cpu") -> OpenModel:
    """Open the model in `folder`; device: where PyTorch and TensorRT run it, ONNX Runtime uses the CPU.

    Raises ArtifactError where the model is absent or cannot be read, and where an exported file was not written by
    `export_model`, is of another version, or of another model than the weights beside it. Raises UserError where the
    runtime has no file or cannot run here.
    """
    config: Any = load_config(folder, EncoderConfig, SegmentorConfig, ClassifierConfig, DetectorConfig)
    chosen = _choose(folder, device) if runtime == "auto" else runtime
    if chosen == "pytorch":
        from shared.models.runtimes.pytorch import load_output_module, pytorch_network

        return OpenModel(config, pytorch_network(load_output_module(folder), device), chosen, device)
    path = folder / _FILES[chosen]
    if not path.is_file():
        raise UserError(f"--runtime {chosen}: {path}: no such file; run export_model first, or set it to pytorch")
    if chosen == "tensorrt":
        if missing := missing_requirement(device):
            raise UserError(f"--runtime {chosen}: {missing}; set it to auto")
        metadata = _engine_metadata(folder)
        metadata.check(folder, config.kind, path)
        return OpenModel(config, engine_network(path, metadata.outputs, device), chosen, device, metadata)
    session = open_session(path)
    metadata = session_metadata(session, path)
    metadata.check(folder, config.kind, path)
    return OpenModel(config, session_network(session), chosen, "cpu", metadata)


def _choose(folder: Path, device: str) -> Runtime:
    if (folder / ENGINE_FILE).is_file() and not missing_requirement(device):
        return "tensorrt"
    return "onnx" if device == "cpu" and (folder / ONNX_FILE).is_file() else "pytorch"


def _engine_metadata(folder: Path) -> GraphMetadata:
    """Metadata of the engine in `folder`, from `export.json`."""
    path = folder / EXPORT_FILE
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: not readable ({error}); export the model again") from error
    return GraphMetadata.parse(content.get("metadata", {}) if isinstance(content, dict) else {}, path)
