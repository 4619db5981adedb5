"""Turn a flow field into instances: pixels move along it, and those that end in one place are one instance.

The method of Cellpose (Stringer et al. 2021, Nature Methods 18:100): Euler's method with steps of the flow's length, a
histogram of the final positions, its peaks, and what is near each.
"""

import cv2
import numpy as np

MIN_PEAK = 10
"""Pixels that must end in one place, more than which make it an instance."""
MIN_NEAR = 2
"""Pixels that must end in a place next to a peak, more than which make it part of the peak."""
_REACH = 5
"""px, distance from a peak up to which places belong to it."""
_PEAK_SIDE = 5
"""px, side of the square in which a peak is the highest."""
_EXACT_STEPS = 16
"""Steps before pixels that are close together are first merged, and between any two mergers."""
_MERGED_PX = 0.125
"""px, spacing of the positions that pixels are merged at."""
_ROW = 2048
"""Positions in a row of the array that OpenCV samples at."""


def instances_of_flow(flow: np.ndarray, mask: np.ndarray, steps: int = 200) -> np.ndarray:
    """Instances of a flow field (2, H, W) float32, y and x, px a step, and a mask (H, W) uint8 {0, 1}.

    Returns a label image (H, W) int32, numbered from 1; the largest peak has the highest number. Pixels that end
    nowhere near a peak are 0.
    """
    return cluster(follow(flow, mask, steps), mask)


def follow(flow: np.ndarray, mask: np.ndarray, steps: int = 200) -> np.ndarray:
    """Move the pixels of a mask (H, W) uint8 {0, 1} along a flow (2, H, W), by Euler's method.

    Between pixels the flow is interpolated bilinearly; outside the mask it is 0. Returns the final positions (2, n)
    float32, y and x, of the mask's pixels in reading order. Every few steps pixels that have come within an eighth of a
    px of each other go on as one.
    """
    field = np.ascontiguousarray((flow * mask).transpose(1, 2, 0), np.float32)
    position = np.stack(np.nonzero(mask)).astype(np.float32)
    if not position.size:
        return position
    owner: np.ndarray | None = None
    for done in range(0, steps, _EXACT_STEPS):
        if done:
            position, group = _merge(position, mask.shape)
            owner = group if owner is None else group[owner]
        position = _step(field, position, min(_EXACT_STEPS, steps - done))
    return position if owner is None else position[:, owner]


def _step(field: np.ndarray, position: np.ndarray, steps: int) -> np.ndarray:
    """Move positions (2, n) by `steps` steps along a field (H, W, 2)."""
    count = position.shape[1]
    rows = -(-count // _ROW)
    places = np.zeros((2, rows * _ROW), np.float32)
    places[:, :count] = position
    y, x = places.reshape(2, rows, _ROW)
    height, width = field.shape[:2]
    for _ in range(steps):
        moved = cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        np.clip(y + moved[..., 0], 0, height - 1, out=y)
        np.clip(x + moved[..., 1], 0, width - 1, out=x)
    return places[:, :count]


def _merge(position: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Round positions (2, n) in an image of `shape`: the different ones (2, m), and which of them each is, (n,)."""
    y, x = np.rint(position / _MERGED_PX).astype(np.int64)
    width = round(shape[1] / _MERGED_PX) + 1
    places, group = np.unique(y * width + x, return_inverse=True)
    return np.stack(np.divmod(places, width)).astype(np.float32) * np.float32(_MERGED_PX), group


def cluster(position: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Instances of the final positions (2, n) of the pixels of a mask (H, W): label image (H, W) int32.

    A peak is a pixel in which more than `MIN_PEAK` pixels end, and most within `_PEAK_SIDE` px. To it belong the places
    next to each other within `_REACH` px of it in which more than `MIN_NEAR` pixels end; a place that is near several
    peaks belongs to the highest.
    """
    height, width = mask.shape
    y, x = position.astype(np.int64) + _REACH  # a margin, so that windows around peaks lie within
    counts = np.bincount(y * (width + 2 * _REACH) + x, minlength=(height + 2 * _REACH) * (width + 2 * _REACH))
    counts = counts.reshape(height + 2 * _REACH, width + 2 * _REACH)
    highest = cv2.dilate(counts.astype(np.float32), np.ones((_PEAK_SIDE, _PEAK_SIDE), np.uint8))
    peak_y, peak_x = np.nonzero((counts == highest) & (counts > MIN_PEAK))
    order = np.argsort(counts[peak_y, peak_x], kind="stable")
    peak_y, peak_x = peak_y[order], peak_x[order]
    reach = np.arange(-_REACH, _REACH + 1)
    busy = counts[peak_y[:, None, None] + reach[:, None], peak_x[:, None, None] + reach] > MIN_NEAR
    peak, row, column = np.nonzero(_connected(busy))
    owner = np.zeros(counts.shape, np.int32)
    owner[peak_y[peak] + row - _REACH, peak_x[peak] + column - _REACH] = peak + 1  # higher peaks are written later
    labels = np.zeros(mask.shape, np.int32)
    labels[np.nonzero(mask)] = owner[y, x]
    return labels


def _connected(windows: np.ndarray) -> np.ndarray:
    """What is connected with the middle of each window (n, S, S) bool by at most `_REACH` steps to neighbours."""
    reached = np.zeros_like(windows)
    reached[:, _REACH, _REACH] = True
    for _ in range(_REACH):
        padded = np.pad(reached, ((0, 0), (1, 1), (1, 1)))
        rows = padded[:, :-2] | padded[:, 1:-1] | padded[:, 2:]
        reached = (rows[..., :-2] | rows[..., 1:-1] | rows[..., 2:]) & windows
    return reached
