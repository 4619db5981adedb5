"""Write the part of a model card on the ONNX file: how to use it without this project."""

from components.export_model.exportable import Exportable
from shared.models.runtimes import INPUT


def usage(subject: Exportable, file: str) -> str:
    """Describe input and output of `file` in Markdown, with a program that applies it to an image."""
    channels, multiple = subject.config.input.channels, subject.multiple
    if subject.segmentor is None:
        output = f"features (width, rows, columns), one for each {multiple} px"
    else:
        output = f"maps ({', '.join(subject.segmentor.maps)}) in [0, 1] for each pixel"
    return f"""
## {file}

Images (N, {channels}, H, W) float32, H and W multiples of {multiple} px -> {output}. Cut large images into overlapping
tiles. `export.json` says how the file compares with the weights on real images.

```python
{usage_program(subject, file)}```
"""


def usage_program(subject: Exportable, file: str) -> str:
    """Write a Python program that applies `file` to `image.tif`; it needs numpy, tifffile and onnxruntime alone."""
    expected, multiple = subject.config.input, subject.multiple
    low, high, clip = expected.normalisation.low, expected.normalisation.high, expected.normalisation.clip
    if subject.segmentor is None:
        result = "features = output[0]"
    else:
        result = "foreground = output[0, 0, :height, :width] >= 0.5"
    return f"""import numpy as np
import onnxruntime
import tifffile

image = tifffile.imread("image.tif")
image = image.reshape(*image.shape[:2], -1).astype(np.float32)  # height, width, {expected.channels} channels
low, high = np.percentile(image, [{low:g}, {high:g}], axis=(0, 1))
image = np.clip((image - low) / np.maximum(high - low, 1e-6), {clip[0]:g}, {clip[1]:g})
height, width = image.shape[:2]
image = np.pad(image, ((0, -height % {multiple}), (0, -width % {multiple}), (0, 0)), "reflect")
session = onnxruntime.InferenceSession("{file}")
output = session.run(None, {{"{INPUT}": image.transpose(2, 0, 1)[None].astype(np.float32)}})[0]
{result}
"""
