"""What a model card says of the exported file: how it is used without this project."""

from components.export_model.exportable import INPUT, Exportable


def usage(subject: Exportable, file: str) -> str:
    """Markdown, with a program that needs numpy, tifffile and onnxruntime alone."""
    given, step = subject.config.input, subject.multiple
    low, high, clip = given.normalisation.low, given.normalisation.high, given.normalisation.clip
    if subject.segmentor is None:
        gives = f"features (width, rows, columns), one for each {step} px"
        last = "features = output[0]"
    else:
        names = ", ".join(subject.segmentor.maps)
        gives = f"maps ({names}), in [0, 1], pixel by pixel"
        last = "foreground = output[0, 0, :height, :width] >= 0.5"
    return f"""
## {file}

Images (N, {given.channels}, H, W) float32, H and W multiples of {step} px -> {gives}. Large images are cut into
overlapping tiles; it was compared with the weights on real images, `export.json` says how close it comes.

```python
import numpy as np
import onnxruntime
import tifffile

image = tifffile.imread("image.tif")
image = image.reshape(*image.shape[:2], -1).astype(np.float32)  # height, width, {given.channels} channels
low, high = np.percentile(image, [{low:g}, {high:g}], axis=(0, 1))
image = np.clip((image - low) / np.maximum(high - low, 1e-6), {clip[0]:g}, {clip[1]:g})
height, width = image.shape[:2]
image = np.pad(image, ((0, -height % {step}), (0, -width % {step}), (0, 0)), "reflect")
session = onnxruntime.InferenceSession("{file}")
output = session.run(None, {{"{INPUT}": image.transpose(2, 0, 1)[None].astype(np.float32)}})[0]
{last}
```
"""
