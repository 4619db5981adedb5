"""Write ONNX files (https://onnx.ai) with torch's exporter."""

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import torch

from components.export_model.exportable import OPSET, Exportable
from shared.models.runtimes import INPUT


def write_onnx(subject: Exportable, path: Path) -> None:
    """Write a model to `path`. Batch, height and width are dynamic; equal models give equal bytes."""
    import onnx

    side = 2 * subject.multiple
    example = torch.zeros(2, subject.config.input.channels, side, side + subject.multiple)
    dynamic = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")  # about the exporter's internals
        program = torch.onnx.export(
            subject.module,
            (example,),
            dynamo=True,
            dynamic_shapes=(dynamic,),
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[subject.output],
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _strip_notes(model)
    _name_axes(model)
    onnx.helper.set_model_props(model, subject.metadata.properties())
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _strip_notes(model: Any) -> None:
    """Remove the exporter's notes on the program that it traced: file paths and lines of code."""
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.functions):
        del part.metadata_props[:]
        part.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]


def _name_axes(model: Any) -> None:
    """Name the dynamic axes of the input and of the output."""
    for axis, name in ((0, "batch"), (2, "height"), (3, "width")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    for axis, name in ((0, "batch"), (2, "rows"), (3, "columns")):
        model.graph.output[0].type.tensor_type.shape.dim[axis].dim_param = name
    del model.graph.value_info[:]
