"""Find the pixel size in micrometres that a file states: OME metadata, ImageJ's unit, TIFF resolution tags."""

import math

import tifffile
from defusedxml import ElementTree

UM_PER_UNIT = {"um": 1.0, "µm": 1.0, "μm": 1.0, "\\u00b5m": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0}
UM_PER_UNIT |= {"nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "inch": 25_400.0, "å": 1e-4}
_UM_PER_RESOLUTION_UNIT = {2: 25_400.0, 3: 10_000.0}
"""TIFF's ResolutionUnit: 2 is inch, 3 is centimetre."""
PLAUSIBLE_UM_PER_PX = (0.005, 10.0)
"""Range in which a bare resolution tag is used: 2,540 dpi and finer. 72 or 300 dpi are printer resolutions."""
MAX_UM_PER_PX = 1e4


def ome_pixel_sizes(xml: str | None) -> list[float | None]:
    """Return um per px of each image that OME metadata describes, in order; None where it is not stated."""
    try:
        root = ElementTree.fromstring(xml or "")
    except Exception:  # without its metadata the image is still usable
        return []
    sizes = []
    for pixels in (element for element in root.iter() if str(element.tag).rsplit("}", 1)[-1] == "Pixels"):
        sides = []
        for axis in "XY":
            unit = UM_PER_UNIT.get(pixels.get(f"PhysicalSize{axis}Unit", "µm").lower())
            value = pixels.get(f"PhysicalSize{axis}")
            sides.append(_number(value) * unit if unit and value else None)
        sizes.append(square_pixel_size(*sides))
    return sizes


def ome_other_files(xml: str | None, name: str) -> list[str]:
    """Names of other files that hold planes of the images which OME metadata describes, in order; name: of this one."""
    try:
        root = ElementTree.fromstring(xml or "")
    except Exception:  # as in `ome_pixel_sizes`
        return []
    named = (element.get("FileName") for element in root.iter() if str(element.tag).rsplit("}", 1)[-1] == "UUID")
    return [other for other in dict.fromkeys(named) if other and other != name]


def _number(text: str) -> float:
    """Convert text to a number; nan, which is no size, where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def tag_pixel_size(tif: tifffile.TiffFile, page: tifffile.TiffPage) -> float | None:
    """Return um per px from ImageJ's unit, else from resolution tags in the range of microscopes."""
    tags = page.tags
    try:
        sides = [_units_per_px(tags[name].value) for name in ("XResolution", "YResolution")]
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    if tif.is_imagej:
        unit = str((tif.imagej_metadata or {}).get("unit", "")).lower()
        return square_pixel_size(*(side * UM_PER_UNIT[unit] for side in sides)) if unit in UM_PER_UNIT else None
    resolution_unit = tags["ResolutionUnit"].value if "ResolutionUnit" in tags else 2
    if resolution_unit not in _UM_PER_RESOLUTION_UNIT:
        return None
    size = square_pixel_size(*(side * _UM_PER_RESOLUTION_UNIT[resolution_unit] for side in sides))
    return size if size and PLAUSIBLE_UM_PER_PX[0] <= size <= PLAUSIBLE_UM_PER_PX[1] else None


def _units_per_px(px_per_unit: tuple[int, int]) -> float:
    """Invert a rational number of pixels per unit."""
    return px_per_unit[1] / px_per_unit[0]


def square_pixel_size(x: float | None, y: float | None) -> float | None:
    """Return one number for square pixels (within 1 %), rounded to 9 digits; None for any others."""
    if x is None or y is None or not (0 < x < MAX_UM_PER_PX and 0 < y < MAX_UM_PER_PX) or abs(x - y) > 0.01 * x:
        return None
    return float(f"{x:.9g}")
