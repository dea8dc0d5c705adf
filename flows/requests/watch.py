"""What the flow `checkpoint-watch` is asked: where to look, and which grid to have scored."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddim_core.common.checks import require_at_most
from flows.requests.flat import build, parameters
from flows.requests.grid import GridRequest

MOST_ATTEMPTS = 1000


@dataclass(frozen=True)
class Watch:
    """The flow's parameters; what they mean is said there."""

    sources: list[str] = field(default_factory=list)
    grid: dict[str, Any] = field(default_factory=dict)
    settle_seconds: float = 5.0
    attempts: int = 3
    here: bool = False

    def check(self) -> None:
        """Makes sure that they can be.

        Raises:
            ValueError: If `grid` holds what its flow does not take, or a number is out of bounds.
        """
        known = [p.name for p in parameters(GridRequest) if p.name != "checkpoint"]
        unknown = [name for name in self.grid if name not in known]
        if unknown:
            raise ValueError(f"fid-grid takes no {', '.join(unknown)}; it takes {', '.join(known)}")
        if self.attempts < 1:
            raise ValueError(f"attempts is {self.attempts}; it must be at least 1")
        require_at_most("attempts", self.attempts, MOST_ATTEMPTS)
        if not 0.0 <= self.settle_seconds <= 3600.0:
            raise ValueError(f"settle_seconds is {self.settle_seconds}; it must lie in 0..3600")

    def of(self, checkpoint: Path) -> dict[str, Any]:
        """The parameters of the grid of a checkpoint."""
        return {**self.grid, "checkpoint": str(checkpoint)}

    def request(self, checkpoint: Path) -> GridRequest:
        """The grid of a checkpoint."""
        return build(GridRequest, self.of(checkpoint))
