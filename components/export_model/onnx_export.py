"""Write ONNX files (https://onnx.ai) with torch's exporter."""

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from components.export_model.exportable import OPSET, Exportable
from shared.models.runtimes import INPUT


def write_onnx(subject: Exportable, path: Path) -> None:
    """Write a model to `path`. Equal models give equal bytes.

    The batch is dynamic, and so are height and width, except where `metadata.multiple` is None.
    """

    metadata = subject.metadata
    example = torch.zeros(2, metadata.channels, *_example_sides(subject))
    axes = {0: "batch"} | ({} if metadata.multiple is None else {2: "height", 3: "width"})
    with _quiet(), torch.no_grad():
        traced = torch.export.export(
            subject.module,
            (example,),
            dynamic_shapes=(dict.fromkeys(axes, torch.export.Dim.DYNAMIC),),
            strict=subject.kind == "detector",  # else its len() and int() make constants of the batch and the sides
        )
        program = torch.onnx.export(
            traced,
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(subject.outputs),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _strip_notes(model)
    _name_axes(model, axes)
    write_model(model, subject, "float32", path)


def write_model(model: Any, subject: Exportable, precision: str, path: Path) -> None:
    """Check an onnx.ModelProto and write it with the metadata; equal models give equal bytes."""
    import onnx

    onnx.helper.set_model_props(model, subject.metadata.model_copy(update={"precision": precision}).properties())
    onnx.checker.check_model(model, full_check=precision == "float32")  # it does not know ONNX Runtime's own operators
    path.write_bytes(model.SerializeToString(deterministic=True))


def _example_sides(subject: Exportable) -> tuple[int, int]:
    """Height and width, px, of an input to trace; they differ where they are dynamic."""
    tile, multiple = subject.metadata.tile, subject.metadata.multiple
    if multiple is None:
        return tile, tile
    side = tile if subject.kind == "detector" else 2 * multiple  # a small tile has fewer positions than queries
    return side, side + multiple


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's notes on its internals; leave out checks of sizes that ONNX has no operator for."""
    name = "TRANSFORMERS_DISABLE_TORCH_CHECK"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


def _strip_notes(model: Any) -> None:
    """Remove the exporter's notes on the program that it traced: file paths and lines of code."""
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.functions):
        del part.metadata_props[:]
        part.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]


def _name_axes(model: Any, axes: dict[int, str]) -> None:
    """Name the dynamic axes of the input and of the outputs; rows and columns are those of a map."""
    for axis, name in axes.items():
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    for output in model.graph.output:
        sizes = output.type.tensor_type.shape.dim
        named = {0: "batch"} | ({2: "rows", 3: "columns"} if len(sizes) == 4 and len(axes) > 1 else {})
        for axis, name in named.items():
            sizes[axis].dim_param = name
    del model.graph.value_info[:]
