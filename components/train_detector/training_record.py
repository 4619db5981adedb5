"""Keep what a training measured, and its best weights: a part of the checkpoint."""

from collections.abc import Mapping
from typing import Any

from shared.models.detector import Detector
from shared.system.log import log
from shared.training.history import History

PARTS_EVERY = 10
"""Steps between two values of the parts of the loss that are kept."""


class TrainingRecord:
    """Metrics on the held-out images, parts of the loss, and the weights of the best average precision."""

    def __init__(self, best: Detector) -> None:
        """best: a network that is overwritten with the best weights."""
        self.best = best
        self.measured: list[tuple[int, dict[str, float]]] = []
        """(steps done, metrics)"""
        self.parts: dict[str, History] = {}
        """Part of the loss -> (step, value)."""

    def state_dict(self) -> dict[str, Any]:
        """Return weights and measurements."""
        return {"best": self.best.state_dict(), "measured": self.measured, "parts": self.parts}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.best.load_state_dict(state_dict["best"])
        self.measured = [(int(step), dict(metrics)) for step, metrics in state_dict["measured"]]
        self.parts = {name: [(int(at), float(one)) for at, one in row] for name, row in state_dict["parts"].items()}

    def add_parts(self, step: int, parts: Mapping[str, float]) -> None:
        """Keep the parts of a step's loss, now and then."""
        if step % PARTS_EVERY == 0:
            for name, value in parts.items():
                self.parts.setdefault(name, []).append((step, float(value)))

    def measure(self, step: int, metrics: dict[str, float], network: Detector) -> None:
        """Keep the metrics after `step` steps, and the weights where no average precision was higher."""
        self.measured.append((step, metrics))
        log.info("step %d: %s", step, ", ".join(f"{name} {value:.3f}" for name, value in metrics.items()))
        if self.best_index == len(self.measured) - 1:
            self.best.load_state_dict(network.state_dict())

    @property
    def best_index(self) -> int:
        """Number of the latest measurement with the highest average precision."""
        scores = [metrics.get("ap", 0.0) for _, metrics in self.measured]
        return max(range(len(scores)), key=lambda i: (scores[i], i))

    @property
    def since_best(self) -> int:
        """Measurements after the best one."""
        return len(self.measured) - 1 - self.best_index if self.measured else 0

    def curve(self, name: str) -> History:
        """Return (steps done, value) of a metric."""
        return [(step, metrics[name]) for step, metrics in self.measured if name in metrics]

    def __str__(self) -> str:
        if not self.measured:
            return "not scored yet"
        step, metrics = self.measured[self.best_index]
        return f"best AP {metrics.get('ap', 0.0):.3f} (AP50 {metrics.get('ap50', 0.0):.3f}) at step {step}"
