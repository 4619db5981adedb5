"""Write predictions as files that people and other programs open, one format a module.

A new format is a module with a class that has the methods of `shared.exporters.exporter.Exporter`, its name in
`Format`, and the class in `EXPORTERS` of `shared.exporters.registry`. The stage `infer` then takes the name.

Declarations import this module, so it loads no numpy.
"""

from typing import Literal

Format = Literal[
    "summary_csv",
    "classes_csv",
    "label_tiff",
    "foreground_png",
    "overlay_png",
    "cells_csv",
    "coco_json",
    "detections_csv",
    "detections_coco_json",
]
"""Names of the formats."""
