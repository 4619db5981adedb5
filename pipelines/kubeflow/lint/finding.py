"""One finding of the linter."""

from collections.abc import Iterator
from dataclasses import dataclass

Problems = Iterator[tuple[str, str]]
"""(rule, message) of each problem that a rule finds."""


@dataclass(frozen=True)
class Finding:
    """Something that a cluster would refuse or run wrongly."""

    file: str
    where: str
    """Task as shown in the UI, its round before it: `em-1/refine-masks`."""
    rule: str
    message: str

    def __str__(self) -> str:
        """One line for a terminal."""
        return f"{self.file}: {self.where}: error: {self.message} [{self.rule}]"
