"""What is asked of a pipeline: the record of one setting."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ddim_core.common.checks import require_at_least, settle_types
from ddim_core.samplers.name import SamplerName


@dataclass(frozen=True)
class Setting:
    """How a pipeline draws.

    Attributes:
        sampler: The scheduler of diffusers.
        steps: S, the steps asked for; where the sampler lists timesteps or sigmas, their number.
        guidance: Scale of classifier-free guidance (1 is none), or the number that the network is
            told.
        eta: Noise fraction in [0, 1] of the samplers that have one.
        seed: Keys the noise, together with the image's index.
    """

    sampler: SamplerName
    steps: int
    guidance: float = 1.0
    eta: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        settle_types(self)
        require_at_least("steps", self.steps, 1)
        require_at_least("seed", self.seed, 0)
        if not 0.0 <= self.eta <= 1.0:
            raise ValueError(f"eta is {self.eta}; it must lie in [0, 1]")
        if not 0.0 <= self.guidance < math.inf:
            raise ValueError(f"guidance is {self.guidance}; it must be at least 0")
        listed = self.sampler.n_listed
        if listed is not None and listed != self.steps:
            raise ValueError(f"steps is {self.steps}; {self.sampler.text} lists {listed}")
