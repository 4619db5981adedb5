"""Write the part of a model card on the ONNX files: how to use them without this project."""

from collections.abc import Sequence

from components.export_model.exportable import Exportable
from shared.imaging.normalise import Normalisation
from shared.models.runtimes import INPUT, INT8_FILE, ONNX_FILE


def usage(subject: Exportable, files: Sequence[str]) -> str:
    """Describe input and outputs of the files in Markdown, with a program that applies the first to an image."""
    metadata = subject.metadata
    sides = f"{metadata.tile} px" if metadata.multiple is None else f"multiples of {metadata.multiple} px"
    also = f"\n`{INT8_FILE}` takes the same input; it is faster on CPUs with 8-bit dot products.\n"
    return f"""
## {ONNX_FILE}

Images (N, {metadata.channels}, H, W) float32, H and W {sides} -> {_OUTPUTS[subject.kind](subject)}.
Inside the graph: {", ".join(metadata.inside)}. Left to the program: {", ".join(metadata.outside)}.
`metadata_props` of the file describe it; `export.json` says how it compares with the weights on real images.
{also if INT8_FILE in files else ""}
```python
{usage_program(subject, files[0])}```
"""


def usage_program(subject: Exportable, file: str) -> str:
    """Write a Python program that applies `file` to `image.tif`; it needs numpy, tifffile and onnxruntime alone.

    With scipy in addition where images are enlarged first.
    """
    expected, clip = subject.config.input, subject.config.input.normalisation.clip
    factor = expected.magnification
    load = "from scipy.ndimage import zoom\n" if factor > 1 else ""
    enlarge = f"image = zoom(image, ({factor}, {factor}, 1), grid_mode=True, mode='nearest')\n" if factor > 1 else ""
    return f"""import numpy as np
import onnxruntime
import tifffile
{load}
image = tifffile.imread("image.tif")
image = image.reshape(*image.shape[:2], -1).astype(np.float32)  # height, width, {expected.channels} channels
{enlarge}low, high = {_limits(expected.normalisation)}
image = np.clip((image - low) / np.maximum(high - low, 1e-6), {clip[0]:g}, {clip[1]:g})
height, width = image.shape[:2]
{_PREPARATIONS[subject.kind](subject)}
session = onnxruntime.InferenceSession("{file}")
outputs = session.run(None, {{"{INPUT}": image.transpose(2, 0, 1)[None].astype(np.float32)}})
{_RESULTS[subject.kind](subject)}
"""


def _limits(normalisation: Normalisation) -> str:
    """Expression for what becomes 0 and 1 in each channel."""
    if normalisation.fixed:
        return f"np.array({[list(pair) for pair in normalisation.fixed]}).T"
    return f"np.percentile(image, [{normalisation.low:g}, {normalisation.high:g}], axis=(0, 1))"


def _features_output(subject: Exportable) -> str:
    return f"`features` (N, width, rows, columns), one for each {subject.metadata.multiple} px"


def _maps_output(subject: Exportable) -> str:
    return f"`maps` ({', '.join(subject.metadata.classes)}) in [0, 1] for each pixel"


def _classes_output(subject: Exportable) -> str:
    return (
        f"`probability` (N, classes) of {', '.join(subject.metadata.classes)}; `distance` (N,) from the training images"
    )


def _boxes_output(subject: Exportable) -> str:
    return (
        f"`scores` (N, queries, classes) of {', '.join(subject.metadata.classes)}; `boxes` (N, queries, 4): "
        "x0, y0, x1, y1 as shares of width and height"
    )


def _padded(subject: Exportable) -> str:
    multiple = subject.metadata.multiple
    return f'image = np.pad(image, ((0, -height % {multiple}), (0, -width % {multiple}), (0, 0)), "reflect")'


def _resized(subject: Exportable) -> str:
    return f"""

def axis(old, new):  # matrix (new, old) that resizes an axis: mean of areas down, bilinear up
    scale = old / new
    if scale > 1:
        start, cell = np.arange(new)[:, None] * scale, np.arange(old)
        return np.clip(np.minimum(start + scale, cell + 1) - np.maximum(start, cell), 0, 1) / scale
    centre = np.clip((np.arange(new)[:, None] + 0.5) * scale - 0.5, 0, old - 1)
    return np.clip(1 - np.abs(centre - np.arange(old)), 0, 1)


{_placed(subject.metadata.tile, subject.config.input.window_px)}"""


def _placed(side: int, window: int | None) -> str:
    """Lines that resize an image by `axis` to `side` px, or with a window into the middle of a square of that side."""
    resize = 'image = np.einsum("ij,jkc,lk->ilc", axis(height, rows), image, axis(width, columns))'
    if window is None:
        return f"rows, columns = {side}, {side}\n{resize}"
    return f"""factor = min({side} / {window}, {side} / max(height, width))
rows, columns = max(1, round(height * factor)), max(1, round(width * factor))
border = np.median(np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]), axis=0)
{resize}
square, top, left = np.tile(border, ({side}, {side}, 1)), ({side} - rows) // 2, ({side} - columns) // 2
square[top : top + rows, left : left + columns] = image
image = square"""


def _padded_tile(subject: Exportable) -> str:
    tile, multiple = subject.metadata.tile, subject.metadata.multiple
    return f"""rows, columns = (max({tile}, side + -side % {multiple}) for side in (height, width))
image = np.pad(image, ((0, rows - height), (0, columns - width), (0, 0)), "reflect")"""


def _boxes_result(subject: Exportable) -> str:
    return f"""scores, boxes = outputs[0][0], outputs[1][0] * [columns, rows, columns, rows]  # px
found = scores.max(axis=1) >= {subject.metadata.postprocessing["score_threshold"]:g}
names = np.array({list(subject.metadata.classes)})[scores[found].argmax(axis=1)]
boxes, scores = boxes[found], scores[found].max(axis=1)"""


def _class_result(subject: Exportable) -> str:
    return f"""probability, distance = outputs[0][0], outputs[1][0]
name = {list(subject.metadata.classes)}[probability.argmax()]"""


_OUTPUTS = {
    "encoder": _features_output,
    "segmentor": _maps_output,
    "classifier": _classes_output,
    "detector": _boxes_output,
}
"""Kind of model -> what describes its outputs."""
_PREPARATIONS = {"encoder": _padded, "segmentor": _padded, "classifier": _resized, "detector": _padded_tile}
"""Kind of model -> lines that make the input of an image."""
_RESULTS = {
    "encoder": lambda subject: "features = outputs[0][0]",
    "segmentor": lambda subject: "foreground = outputs[0][0, 0, :height, :width] >= 0.5",
    "classifier": _class_result,
    "detector": _boxes_result,
}
"""Kind of model -> lines that make the result of the outputs."""
