"""What `cells.csv` says of every cell: size, place, shape and intensity, all objects of an image at once."""

import numpy as np
from scipy import ndimage

ROWS = 1024
"""Rows that are measured at a time."""


def measure(labels: np.ndarray, image: np.ndarray) -> dict[str, np.ndarray]:
    """Column name -> (n,) values of the objects 1..n of a label image (H, W); image: (H, W, C).

    area_px; centroid_y, centroid_x in px, the centre of the top left pixel being (0, 0); y0, x0, y1, x1 the box in
    px, its end excluded; eccentricity of the ellipse with equal second moments, 0 for a circle; mean_0, mean_1, ...
    the mean intensity of each channel, of finite values only.
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
        "y0": y0,
        "x0": x0,
        "y1": y1,
        "x1": x1,
        "eccentricity": eccentricity(*moments),
    }
    for channel in range(image.shape[2]):
        finite = np.maximum(sums[f"finite {channel}"], 1)
        columns[f"mean_{channel}"] = sums[f"value {channel}"] / finite
    return columns


def _sums(labels: np.ndarray, image: np.ndarray, y0: np.ndarray, x0: np.ndarray) -> dict[str, np.ndarray]:
    """Sums over the pixels of each object; coordinates count from the object's box, which keeps the sums exact."""
    total: dict[str, np.ndarray] = {}
    for top in range(0, len(labels), ROWS):
        strip = labels[top : top + ROWS]
        y, x = np.nonzero(strip)
        which = strip[y, x].astype(np.int64) - 1
        values = image[top : top + ROWS][y, x].astype(np.float64)  # (pixels, C)
        y, x = y + top - y0[which], x - x0[which]
        parts = {"1": np.ones(len(y)), "y": y, "x": x, "yy": y * y, "xx": x * x, "xy": x * y}
        for channel in range(values.shape[1]):
            finite = np.isfinite(values[:, channel])
            parts[f"finite {channel}"] = finite
            parts[f"value {channel}"] = np.where(finite, values[:, channel], 0)
        for name, part in parts.items():
            total[name] = total.get(name, 0) + np.bincount(which, part, minlength=len(y0))
    return total


def eccentricity(yy: np.ndarray, xx: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Eccentricity (n,) in [0, 1) from central second moments (n,): sqrt(1 - minor² / major²) of the ellipse."""
    middle, half = (yy + xx) / 2, np.hypot((yy - xx) / 2, xy)
    major, minor = middle + half, np.maximum(middle - half, 0)
    return np.sqrt(np.where(major > 0, 1 - minor / np.where(major > 0, major, 1), 0))


def mean_over_objects(labels: np.ndarray, plane: np.ndarray) -> np.ndarray:
    """Mean of a plane (H, W) over each of the objects 1..n of a label image (H, W): (n,) float64."""
    count = int(labels.max(initial=0))
    total, area = np.zeros(count + 1), np.zeros(count + 1)
    for top in range(0, len(labels), ROWS):
        strip = labels[top : top + ROWS].ravel()
        total += np.bincount(strip, plane[top : top + ROWS].ravel(), count + 1)
        area += np.bincount(strip, minlength=count + 1)
    return total[1:] / np.maximum(area[1:], 1)
