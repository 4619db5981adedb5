"""Measure the regions of a label image: area, position, shape and intensity of all objects at once."""

import numpy as np
from scipy import ndimage

from shared.imaging.row_strips import row_slices

_ROWS = 1024
"""Rows measured at a time."""


def region_properties(labels: np.ndarray, image: np.ndarray) -> dict[str, np.ndarray]:
    """Label image (H, W) and image (H, W, C) -> column name -> (n,) values of the objects 1..n.

    - area_px
    - centroid_y, centroid_x: px; the centre of the top left pixel is (0, 0)
    - y0, x0, y1, x1: bounding box in px, end excluded
    - eccentricity: of the ellipse with the same second moments; 0 for a circle
    - mean_0, mean_1, ...: mean of each channel's finite values
    """
    count = int(labels.max(initial=0))
    boxes = ndimage.find_objects(labels.astype(np.int32, copy=False), count)
    y0, y1 = (np.array([getattr(box[0], end) for box in boxes], np.int64) for end in ("start", "stop"))
    x0, x1 = (np.array([getattr(box[1], end) for box in boxes], np.int64) for end in ("start", "stop"))
    sums = _sums(labels, image, y0, x0)
    area = sums["1"]
    dy, dx = sums["y"] / area, sums["x"] / area
    moments = sums["yy"] / area - dy**2, sums["xx"] / area - dx**2, sums["xy"] / area - dx * dy
    columns = {
        "area_px": area.astype(np.int64),
        "centroid_y": y0 + dy,
        "centroid_x": x0 + dx,
        **dict(zip(("y0", "x0", "y1", "x1"), (y0, x0, y1, x1), strict=True)),
        "eccentricity": _eccentricity(*moments),
    }
    for channel in range(image.shape[2]):
        columns[f"mean_{channel}"] = sums[f"value {channel}"] / np.maximum(sums[f"finite {channel}"], 1)
    return columns


def mean_over_objects(labels: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """Average a plane (H, W) over each of the objects 1..n of a label image (H, W): (n,) float64."""
    count = int(labels.max(initial=0))
    total, area = np.zeros(count + 1), np.zeros(count + 1)
    for rows in row_slices(len(labels), _ROWS):
        strip = labels[rows].ravel()
        total += np.bincount(strip, plane[rows].ravel(), count + 1)
        area += np.bincount(strip, minlength=count + 1)
    return total[1:] / np.maximum(area[1:], 1)


def _sums(labels: np.ndarray, image: np.ndarray, y0: np.ndarray, x0: np.ndarray) -> dict[str, np.ndarray]:
    """Sum over the pixels of each object; coordinates count from the object's box, which keeps the sums exact."""
    total: dict[str, np.ndarray] = {}
    for rows in row_slices(len(labels), _ROWS):
        strip = labels[rows]
        y, x = np.nonzero(strip)
        owner = strip[y, x].astype(np.int64) - 1
        values = image[rows][y, x].astype(np.float64)  # (pixels, C)
        y, x = y + rows.start - y0[owner], x - x0[owner]
        summands = {"1": np.ones(len(y)), "y": y, "x": x, "yy": y * y, "xx": x * x, "xy": x * y}
        for channel in range(values.shape[1]):
            finite = np.isfinite(values[:, channel])
            summands[f"finite {channel}"] = finite
            summands[f"value {channel}"] = np.where(finite, values[:, channel], 0)
        for name, values_of_pixels in summands.items():
            total[name] = total.get(name, 0) + np.bincount(owner, values_of_pixels, minlength=len(y0))
    return total


def _eccentricity(yy: np.ndarray, xx: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Central second moments (n,) -> eccentricity (n,) in [0, 1): sqrt(1 - minor² / major²) of the ellipse."""
    middle, half = (yy + xx) / 2, np.hypot((yy - xx) / 2, xy)
    major, minor = middle + half, np.maximum(middle - half, 0)
    return np.sqrt(np.where(major > 0, 1 - minor / np.where(major > 0, major, 1), 0))
