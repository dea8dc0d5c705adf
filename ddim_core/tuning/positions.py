"""Where a sampler can be told to ask the network: positions on a scale, and the lists they make."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.scheduler_config import USUAL
from ddim_core.samplers.catalogue import OWN, SAMPLERS, Family
from ddim_core.samplers.families import CALLED, family_of, settled_own
from ddim_core.samplers.fits import class_behind
from ddim_core.samplers.name import SamplerName
from ddim_core.samplers.scheduler import Visited, entries_of
from ddim_core.tuning.tunable import NotTunableError, noisy, require_tunable

Positions = tuple[float, ...]
Visits = Callable[[SamplerName, int], Visited]
"""Where a sampler of so many steps asks the network, or ValueError in words."""
DIGITS = 5  # of a listed sigma: a difference beyond them moves no pixel
TAKERS: dict[Family, str] = {
    "vp": "dpmpp_2m, dpmpp_2s, dpmpp_3m, heun, euler or ddim", "flow": "unipc or flow_euler",
}  # fmt: skip
"""Samplers whose schedulers go where a list says, by the family of the network."""
SPACINGS = ((1.0, 0.0, 1.0), (1.0, 0.02, 1.0), (1.0, 0.0, 2.0), (0.75, 0.02, 2.0))
"""Where a search looks first, as (noisiest, cleanest, rho): uniform to 0, uniform, quadratic, and
quadratic from three quarters."""


@dataclass(frozen=True)
class Scale:
    """The positions of a sampler: 0 is clean, `top` the noisiest that the network was trained on.

    Attributes:
        word: What the scheduler is given: `timesteps`, or `sigmas`.
        whole: Positions are whole numbers, the timesteps that the network was trained on.
        top: The noisiest position: T - 1 where they are timesteps.
        family: What the network is; it says what a sigma is.
        levels: Sigmas of a diffusion model, by timestep.
    """

    word: Literal["timesteps", "sigmas"]
    whole: bool
    top: float
    family: Family
    levels: tuple[float, ...] = ()

    def listed(self, name: SamplerName, positions: Sequence[float]) -> SamplerName:
        """Returns the sampler with the list that lies at these positions, noisiest first."""
        if self.word == "timesteps":
            return replace(name, timesteps=tuple(int(u) for u in positions))
        return replace(name, own_sigmas=tuple(self._sigma(u) for u in positions))

    def _sigma(self, u: float) -> float:
        if self.family == "flow":
            return float(f"{max(u, 1e-3) / self.top:.{DIGITS}g}")
        return float(f"{self.levels[int(u)]:.{DIGITS + 2}g}")

    def positions_of(self, name: SamplerName) -> Positions | None:
        """Returns where a sampler's list lies on the scale; None if it lies beyond its ends, or is
        none of what the scheduler is given."""
        if self.word == "timesteps":
            listed = name.timesteps
            return self.settled(listed) if listed and listed[0] <= self.top else None
        if not name.own_sigmas:
            return None
        if self.family == "flow":
            inside = name.own_sigmas[0] <= 1.0
            return self.settled([s * self.top for s in name.own_sigmas]) if inside else None
        nearest = [
            min(range(len(self.levels)), key=lambda t: abs(self.levels[t] - sigma))
            for sigma in name.own_sigmas
        ]
        return self.settled(nearest)

    def settled(self, positions: Sequence[float]) -> Positions | None:
        """Returns positions as they can be: on the scale, whole where they must be, falling; None
        if two of them come to lie at one place."""
        low = 0.0 if self.whole else 1e-3
        kept = [min(max(u, low), self.top) for u in positions]
        kept = [float(round(u)) if self.whole else round(u, 3) for u in kept]
        return tuple(kept) if all(a > b for a, b in pairwise(kept)) else None

    def spaced(self, n: int, high: float, low: float, rho: float) -> Positions | None:
        """Returns n positions between two ends, given as shares of the scale:

            u_i = top ((1 - i / (n - 1)) high^(1/rho) + i / (n - 1) low^(1/rho))^rho

        uniform for rho = 1, quadratic for 2, crowded at the clean end as Karras et al. 2022
        (arXiv:2206.00364) for large rho. Of one position it is the noisier end.
        """
        ends = [max(end, 0.0) ** (1.0 / rho) for end in (high, low)]
        shares = [i / (n - 1) if n > 1 else 0.0 for i in range(n)]
        return self.settled([self.top * ((1 - w) * ends[0] + w * ends[1]) ** rho for w in shares])


def scale_of(name: SamplerName, own: Mapping[str, Any], visits: Visits, n: int = 4) -> Scale:
    """Returns the scale on which a sampler's list can lie for a checkpoint.

    Args:
        name: The sampler, without a list.
        own: The checkpoint's scheduler_config.json, with its class.
        visits: Tries it.
        n: Of so many steps.

    Raises:
        NotTunableError: If the sampler draws noise on the way, has a list already, or takes none.
        ValueError: If it does not fit the checkpoint.
    """
    require_tunable(name)
    family, config = family_of(own), settled_own(own)
    top = float(config.get("num_train_timesteps", 1000)) - 1.0
    scales = [Scale("timesteps", True, top, family), Scale("sigmas", True, top, family)]
    if family == "flow":
        scales = [Scale("sigmas", False, top + 1.0, family)]
    elif family == "vp":
        scales[1] = replace(scales[1], levels=_levels(config))
    else:
        raise NotTunableError(f"{name.text} is not tuned: {untuned(family)}")
    _require_quiet(name, own)
    why = ""
    for scale in scales:
        reason = _refuses(name, scale, visits, n)
        if not reason:
            return scale
        why = why or reason
    raise NotTunableError(
        f"{name.text} cannot be told where to ask the network ({why}); take {TAKERS[family]}"
    )


def _require_quiet(name: SamplerName, own: Mapping[str, Any]) -> None:
    """Makes sure that a class's scheduler follows the ODE, where its name does not tell."""
    kind = class_behind(name, own)
    of_kind = [sampler for sampler in SAMPLERS.values() if sampler.kind == kind]
    sde = "sde" in str(entries_of(name, own).get("algorithm_type"))
    if sde or (of_kind and all(sampler.noisy for sampler in of_kind)):
        raise NotTunableError(noisy(f"{name.text} ({kind})"))


def untuned(family: Family) -> str:
    """Says why checkpoints of a family are not tuned."""
    if family == "edm":
        return (
            "the EDM schedulers of diffusers take no list (what they call sigmas is a ramp from 0 "
            "to 1); tuned are diffusion models with a schedule of betas, and flows"
        )
    return (
        f"the checkpoint is {CALLED[family]}; tuned are diffusion models with a schedule of betas, "
        "and flows"
    )


def needs_steps(name: SamplerName, own: Mapping[str, Any], calls: int) -> int:
    """Returns how many steps make so many network calls: Heun's methods ask twice a step, and once
    in the last one.

    Raises:
        ValueError: If no number of steps does.
    """
    kind = class_behind(name, own) if name.name == OWN else SAMPLERS[name.name].kind
    if "Heun" not in kind and "KDPM2" not in kind:
        return calls
    if calls % 2 == 0:
        raise ValueError(
            f"{name.text} asks the network twice a step and once in the last, 2 S - 1 times; "
            f"calls is {calls}; take an odd number"
        )
    return (calls + 1) // 2


def _levels(config: Mapping[str, Any]) -> tuple[float, ...]:
    """Noise over signal of a diffusion model, by timestep."""
    alpha_bar = NoiseSchedule.from_diffusers({**config, "_class_name": USUAL}).alpha_bar
    return tuple(math.sqrt((1 - a) / max(a, 2.0**-24)) for a in map(float, alpha_bar))


def _refuses(name: SamplerName, scale: Scale, visits: Visits, n: int) -> str:
    """Why a scheduler does not go where such a list says; empty where it does."""
    seen = []
    for high in (0.9, 0.7):
        positions = scale.spaced(n, high, 0.05, 1.0)
        if positions is None:
            return f"{n} steps do not fit"
        try:
            done = visits(scale.listed(name, positions), n)
        except ValueError as error:
            return str(error)
        seen.append((done.timesteps, done.sigmas))
    return "" if seen[0] != seen[1] else f"it goes its own way whatever {scale.word} are listed"
