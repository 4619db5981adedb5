"""Measure latency and throughput of networks side by side."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shared.models.network import Network
from shared.system.progress import track

_WARM_UP, _MIN_RUNS, _MAX_RUNS = 2, 5, 50
_SECONDS = 2.0
"""Time that the runs of one network may take, once there are `_MIN_RUNS`."""


@dataclass(frozen=True)
class Timing:
    """Duration of forward passes on one batch."""

    batch: int
    """Tiles in a batch."""
    runs: int
    median_ms: float
    """Of a batch."""
    p95_ms: float
    """Of a batch: 95 % take at most this long."""
    cpu_ms: float
    """CPU time of a batch, all threads together, median. Other work on the machine disturbs it little."""

    @property
    def per_second(self) -> float:
        """Tiles per second, by the median."""
        return self.batch / self.median_ms * 1e3


def time_networks(
    networks: Mapping[str, Network], tile: np.ndarray, batches: tuple[int, ...]
) -> dict[str, list[Timing]]:
    """Time networks on `tile` (1, C, H, W), repeated to each of the batch sizes: name -> a Timing for each.

    The networks take turns, so that other work on the machine slows all of them alike.
    """
    found: dict[str, list[Timing]] = {name: [] for name in networks}
    for batch in track(batches, "export_model: timing", len(batches)):
        images = np.ascontiguousarray(np.repeat(tile, batch, axis=0))
        for name, runs in _alternate(networks, images).items():
            seconds, cpu = zip(*runs, strict=True)
            median, p95 = (float(np.percentile(seconds, percent)) * 1e3 for percent in (50, 95))
            found[name].append(Timing(batch, len(runs), median, p95, float(np.median(cpu)) * 1e3))
    return found


def _alternate(networks: Mapping[str, Network], images: np.ndarray) -> dict[str, list[tuple[float, float]]]:
    """Seconds and CPU seconds of each run of each network."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in networks}
    for run in range(_WARM_UP + _MAX_RUNS):
        for name, network in networks.items():
            started, cpu = time.perf_counter(), time.process_time()
            network(images)
            if run >= _WARM_UP:
                found[name].append((time.perf_counter() - started, time.process_time() - cpu))
        spent = sum(seconds for runs in found.values() for seconds, _ in runs)
        if run + 1 >= _WARM_UP + _MIN_RUNS and spent >= _SECONDS * len(networks):
            break
    return found
