"""Write predictions as files that people and other programs open, one format a module.

A new format is a module with a class that has the methods of `shared.exporters.exporter.Exporter`, and an entry in
`Format`. The class is called as the module, in capitals: `label_tiff.py` holds `LabelTiff`. The stage `infer` then
takes the format's name in `formats`.

Declarations import this module, so it loads no numpy.
"""

from typing import Literal

Format = Literal["label_tiff", "foreground_png", "overlay_png", "cells_csv", "coco_json"]
"""Names of the formats, which are those of the modules."""
