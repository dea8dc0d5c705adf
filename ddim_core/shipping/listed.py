"""A sampler's steps as `set_timesteps` of diffusers is given them."""

from __future__ import annotations

from ddim_core.common.foreign import Keywords
from ddim_core.samplers.name import SamplerName


def listed_steps(name: SamplerName, kind: str) -> Keywords:
    """Returns a sampler's own list, by the argument that takes it; empty where it has none.

    Args:
        name: The sampler.
        kind: The scheduler's class: `EulerDiscreteScheduler` wants the 0 at the end of its sigmas,
            as `ddim_core.samplers.scheduler.set_steps` gives it.
    """
    if name.timesteps:
        return {"timesteps": list(name.timesteps)}
    if name.own_sigmas:
        ends = [0.0] if kind == "EulerDiscreteScheduler" else []
        return {"sigmas": [*name.own_sigmas, *ends]}
    return {}


def handed(call: Keywords, own_steps: Keywords, flow_sigmas: bool) -> tuple[Keywords, Keywords]:
    """Returns the arguments of a plain call with a sampler's own list, where the call can hand it
    on, and what is left for `set_timesteps`.

    Args:
        call: Of `plain_call`.
        own_steps: Of `listed_steps`.
        flow_sigmas: The scheduler is told `use_flow_sigmas`: calls hand it a plain list, which it
            cannot shift, or none at all (Flux's).
    """
    if flow_sigmas:
        return {k: v for k, v in call.items() if k not in own_steps}, own_steps
    left = {name: value for name, value in own_steps.items() if name not in call}
    return {name: own_steps.get(name, value) for name, value in call.items()}, left


def set_steps_of(name: SamplerName, kind: str, steps: int) -> Keywords:
    """Returns all that `set_timesteps` is given: the list, or how many steps are asked for."""
    return listed_steps(name, kind) or {"num_inference_steps": steps}
