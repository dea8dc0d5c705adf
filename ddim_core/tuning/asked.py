"""What can be tuned of a checkpoint, as far as its own scheduler tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ddim_core.samplers.canonical import canonical
from ddim_core.samplers.catalogue import Family
from ddim_core.samplers.families import family_of
from ddim_core.samplers.name import SamplerName, parse_sampler
from ddim_core.samplers.scheduler import Visited, scheduler_for, set_steps
from ddim_core.tuning.positions import Visits, needs_steps, scale_of, untuned
from ddim_core.tuning.target import USUAL
from ddim_core.tuning.tunable import NotTunableError

USUALLY: dict[Family, tuple[str, ...]] = {"vp": ("dpmpp_2m",), "flow": ("unipc", "flow_euler")}
"""Samplers that are tuned where none is named."""


def settings_asked(
    own: Mapping[str, Any], samplers: Sequence[str], calls: Sequence[int], visits: Visits
) -> list[tuple[SamplerName, int, int]]:
    """Returns the samplers without lists, each with its steps and the network calls they make.

    Args:
        own: The checkpoint's scheduler_config.json, with its class.
        samplers: By name; empty takes those that are usual for its family.
        calls: How many network calls an image; guidance, which may double them, left out.
        visits: Tries them.

    Raises:
        NotTunableError: If a named sampler draws noise on the way, or cannot be told where to ask.
        ValueError: If it does not fit the checkpoint, or no number of steps makes so many calls.
    """
    family = family_of(own)
    if family not in USUAL:
        raise NotTunableError(f"nothing is tuned: {untuned(family)}")
    found = []
    named = [canonical(parse_sampler(text), own) for text in samplers or USUALLY[family]]
    for name in dict.fromkeys(named):
        for n_calls in dict.fromkeys(calls):
            steps = needs_steps(name, own, n_calls)
            scale_of(name, own, visits, steps)
            found.append((name, steps, n_calls))
    return found


def visits_by_loop(own: Mapping[str, Any]) -> Visits:
    """Returns what tells where a sampler would ask the network in our loop over its scheduler.

    Args:
        own: The checkpoint's scheduler_config.json, with its class.
    """

    def visits(name: SamplerName, steps: int) -> Visited:
        return set_steps(scheduler_for(name, own), name, steps)

    return visits
