"""Run ONNX files (https://onnx.ai) by ONNX Runtime, on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np

from shared.models.network import Network
from shared.models.runtimes import INPUT
from shared.models.runtimes.metadata import GraphMetadata
from shared.system.devices import threads
from shared.system.errors import ArtifactError


def open_session(path: Path) -> Any:
    """Open the file at `path`, an onnxruntime.InferenceSession. Raises ArtifactError if it cannot be loaded."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.log_severity_level = 3  # errors
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as OMP_WAIT_POLICY=PASSIVE
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions, which differ between its releases
        raise ArtifactError(f"{path}: ONNX Runtime cannot load it ({error}); export the model again") from error


def session_metadata(session: Any, path: Path) -> GraphMetadata:
    """Read the metadata of an open file. Raises ArtifactError where `export_model` did not write it."""
    return GraphMetadata.of(session.get_modelmeta().custom_metadata_map, path)


def onnx_network(path: Path) -> Network:
    """Load the file at `path` as a function of arrays. Raises ArtifactError if it cannot be loaded."""
    return session_network(open_session(path))


def session_network(session: Any) -> Network:
    """Make an open file a function of arrays."""

    def network(images: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(np.asarray(output) for output in session.run(None, {INPUT: images}))

    return network
