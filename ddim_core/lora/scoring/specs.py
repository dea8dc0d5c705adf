"""Frozen records of a scorecard: which prompts are drawn, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ddim_core.common.checks import (
    MOST_DRAWING_STEPS,
    require_at_least,
    require_at_most,
    require_choice,
    require_side,
    settle_types,
)

PromptRole = Literal["held-out", "trained", "instance", "class", "other", "given"]
ROLES: dict[str, str] = {
    "held-out": "prompts whose subjects the LoRA was not trained on",
    "trained": "prompts of what the LoRA was trained on",
    "instance": "prompts with the new subject's own words",
    "class": "plain prompts of the new subject's class",
    "other": "prompts of other subjects",
    "given": "the prompts that were given",
}
PRIOR: tuple[str, ...] = ("class", "other")  # their pictures should stay as they were


@dataclass(frozen=True)
class PromptSet:
    """Prompts that are drawn at every scale from the same noise.

    Attributes:
        role: What they are to the LoRA.
        prompts: Distinct texts.
        per_prompt: Pictures of each; at least 2 for a diversity.
        steps: Sampling steps, with the base's own scheduler.
        guidance: Scale of classifier-free guidance; 1 is none.
        resolution: Height and width in pixels; 0 is the base's own.
        seed: Keys the noise.
    """

    role: PromptRole
    prompts: tuple[str, ...]
    per_prompt: int = 2
    steps: int = 20
    guidance: float = 2.0
    resolution: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        settle_types(self)
        require_choice("role", self.role, get_args(PromptRole))
        for name in ("per_prompt", "steps"):
            require_at_least(name, getattr(self, name), 1)
        require_at_most("steps", self.steps, MOST_DRAWING_STEPS)
        require_side("resolution", self.resolution, 0)
        require_at_least("seed", self.seed, 0)
        if not self.prompts:
            raise ValueError("prompts is empty; give at least one")
        if len(set(self.prompts)) < len(self.prompts):
            raise ValueError(f"prompts of {self.role} repeat themselves; each must be given once")

    @property
    def texts(self) -> list[str]:
        """The prompt of every picture."""
        return [prompt for prompt in self.prompts for _ in range(self.per_prompt)]

    @property
    def seeds(self) -> list[int]:
        """The seed of every picture's noise, none twice."""
        # A key has 63 bits, of which a seed has the upper 31.
        return [(self.seed % 2**31 << 32) + i for i in range(len(self.texts))]


def require_scales(scales: tuple[float, ...]) -> tuple[float, ...]:
    """Returns the scales of a sweep, the base's 0 first, each once and in order.

    Raises:
        ValueError: If one is negative or not finite.
    """
    for scale in scales:
        if not 0.0 <= scale < 100.0:
            raise ValueError(f"a scale is {scale}; it must lie in [0, 100)")
    return tuple(sorted({0.0, *(float(scale) for scale in scales)}))
