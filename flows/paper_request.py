"""What `paper` was asked for, checked before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ddim_core.schedule import timesteps
from ddim_core.specs import require_at_least
from flows.asked import with_defaults
from flows.request import GridRequest
from flows.toy import toy_spec

LEAST_RECONSTRUCTED = 2  # one image has no interval


@dataclass(frozen=True)
class PaperRequest:
    """The parameters of `paper`: those of its grid, and those of its reconstruction.

    Raises:
        ValueError: On construction, for the first parameter that cannot be, with its value.
    """

    grid: dict[str, Any]
    reconstruction_steps: list[int]
    n_reconstructed: int

    def __post_init__(self) -> None:
        require_at_least("n_reconstructed", self.n_reconstructed, LEAST_RECONSTRUCTED)
        if not self.reconstruction_steps:
            raise ValueError("reconstruction_steps is empty; give at least one, such as 10")
        for steps in self.reconstruction_steps:
            require_at_least("reconstruction_steps", steps, 1)
        request = self.checked_grid()
        if not request.checkpoint:
            spec = toy_spec(request.dataset, request.resolution, 1, request.train_steps, 0)
            self.require_steps(spec.noise.n_train)

    def checked_grid(self) -> GridRequest:
        """Returns the grid's request; what is not given here is as the flow has it."""
        return GridRequest(**with_defaults("fid_grid", self.grid))

    @property
    def line(self) -> str:
        """What is about to be done, for people."""
        n, s = self.n_reconstructed, ", ".join(map(str, self.reconstruction_steps))
        return f"paper: {n} images encoded and decoded with S = {s}; {self.checked_grid().line}"

    def require_steps(self, n_train: int) -> None:
        """Makes sure that every S is one of a checkpoint with T = n_train."""
        for steps in [*self.grid["steps"], *self.reconstruction_steps]:
            timesteps(n_train, steps, self.grid["spacing"])


def paper_request(parameters: dict[str, Any]) -> PaperRequest:
    """Splits the flow's parameters into the grid's and the others, and checks them."""
    own = ("reconstruction_steps", "n_reconstructed")
    grid = {name: value for name, value in parameters.items() if name not in own}
    return PaperRequest({**grid, "sigma_hat": True}, *(parameters[name] for name in own))
