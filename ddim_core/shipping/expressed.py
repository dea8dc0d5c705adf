"""The scheduler of diffusers that takes the same steps as the project's own sampler, if one does.

Found by trying them step by step, not by rules: what a scheduler does with a spacing, an offset and
a number of steps is its own matter (`DDIMScheduler` goes from t to t - T // S, wherever its list
goes on).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddim_core.common.foreign import Config, Keywords
from ddim_core.diffusion.sampling import sample
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import SamplerSpec
from ddim_core.samplers.catalogue import class_entries
from ddim_core.samplers.families import trained
from ddim_core.samplers.scheduler import takes_eta
from ddim_core.schedulers.registry import scheduler_class

SPACINGS = ("leading", "trailing", "linspace")
CLOSE = 2e-4  # of the largest value: diffusers' tables are float32, a product of T factors
SHAPE = (2, 1, 4, 4)
_VARIANCES = {"eta": "fixed_small", "sigma_hat": "fixed_large"}  # of DDPMScheduler


@dataclass(frozen=True, eq=False)
class Expressed:
    """A scheduler of diffusers that does what the project's own sampler does.

    Attributes:
        scheduler: It, as `set_timesteps` has not yet been called.
        set_steps: What its `set_timesteps` is given: a number of steps, or a list of timesteps.
        eta: What its step is given, where it takes eta; else 0.
    """

    scheduler: Any
    set_steps: Keywords
    eta: float


@dataclass(frozen=True, eq=False)
class Made:
    """A step that was made: from x `before` at timestep t, where the network `said` something, to x
    `after`, each [batch, ...]."""

    t: int
    before: Tensor
    said: Tensor
    after: Tensor


def expressed(
    schedule: NoiseSchedule, spec: SamplerSpec, own: Mapping[str, Any]
) -> Expressed | None:
    """Finds the scheduler of diffusers that makes each step of a setting to rounding.

    Args:
        schedule: The noise schedule that is sampled.
        spec: The setting of the project's own sampler.
        own: The checkpoint's scheduler_config.json, with its class, and the same schedule.

    Returns:
        The first of DDIM, DDPM and DPM-Solver++ of first order that does; None if none does, as for
        a list of timesteps of one's own with 0 < eta < 1.
    """
    with torch.inference_mode():
        made = _steps_of_ours(schedule, spec)
        tried = _candidates(spec, [step.t for step in made], own)
        return next((each for each in tried if _same(each, made)), None)


def _candidates(
    spec: SamplerSpec, timesteps: list[int], own: Mapping[str, Any]
) -> Iterator[Expressed]:
    listed: Keywords = {"timesteps": timesteps}
    clipped: Config = {"clip_sample": spec.clip, "clip_sample_range": spec.clip_range}
    if spec.dynamic_threshold is not None:
        clipped = {"clip_sample": False, "thresholding": True, "sample_max_value": spec.clip_range,
                   "dynamic_thresholding_ratio": spec.dynamic_threshold}  # fmt: skip
    numbers: list[Keywords] = [
        {"num_inference_steps": n} for n in dict.fromkeys([spec.steps, len(timesteps)])
    ]
    spaced: list[tuple[Keywords, Keywords]] = [
        ({"timestep_spacing": spacing, "steps_offset": offset}, number)
        for spacing in SPACINGS
        for offset in dict.fromkeys([0, spec.steps_offset])
        for number in numbers
    ]
    ddpm = {**clipped, "variance_type": _VARIANCES[spec.variance]}
    for entries, number in spaced:
        ends = {**entries, **clipped, "set_alpha_to_one": True}
        yield _made("DDIMScheduler", ends, number, spec.eta, own)
    for entries, number in [*spaced, ({}, listed)]:
        if spec.eta == 1.0:
            yield _made("DDPMScheduler", {**entries, **ddpm}, number, 0.0, own)
    if spec.eta in (0.0, 1.0):
        algorithm = "dpmsolver++" if spec.eta == 0.0 else "sde-dpmsolver++"
        first = {"algorithm_type": algorithm, "solver_order": 1, "final_sigmas_type": "zero"}
        yield _made("DPMSolverMultistepScheduler", first, listed, 0.0, own)


def _made(
    kind: str, entries: Mapping[str, Any], steps: Mapping[str, Any], eta: float,
    own: Mapping[str, Any],
) -> Expressed:  # fmt: skip
    known = class_entries(kind)
    config = {key: value for key, value in trained(own).items() if key in known}
    scheduler = scheduler_class(kind).from_config({**config, **entries})
    return Expressed(scheduler, dict(steps), eta)


def _same(tried: Expressed, made: Sequence[Made]) -> bool:
    """Whether a scheduler asks the network at the same timesteps, and makes each step alike."""
    scheduler = type(tried.scheduler).from_config(tried.scheduler.config)
    more = {"eta": tried.eta} if takes_eta(scheduler) else {}
    try:
        scheduler.set_timesteps(**tried.set_steps)
        if [int(t) for t in scheduler.timesteps] != [step.t for step in made]:
            return False
        for i, (t, step) in enumerate(zip(scheduler.timesteps, made, strict=True)):
            draw = torch.Generator().manual_seed(i)
            x = scheduler.step(
                step.said, t, step.before, generator=draw, return_dict=False, **more
            )[0]
            if not bool(((x - step.after).abs() <= CLOSE * step.after.abs().max()).all()):
                return False
    except Exception:  # it refuses these steps, each in its own way
        return False
    return True


def _steps_of_ours(schedule: NoiseSchedule, spec: SamplerSpec) -> list[Made]:
    """The steps of `sample` on a network of numbers: near the best one for white images, so that
    they stay of unit size, and a little off, so that each step has an x0 and an eps of its own."""
    asked: list[tuple[int, Tensor, Tensor]] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        alpha_bar = schedule.at(int(t[0]))
        signal, noise = alpha_bar**0.5, (1.0 - alpha_bar) ** 0.5
        off = torch.randn(SHAPE, generator=torch.Generator().manual_seed(len(asked) + 2**20))
        x0 = signal * x + 0.5 * noise * off
        eps = (x - signal * x0) / noise
        said = {"epsilon": eps, "sample": x0, "v_prediction": signal * eps - noise * x0}
        asked.append((int(t[0]), x, said[spec.prediction_type]))
        return said[spec.prediction_type]

    def noise(i: int) -> Tensor:
        return torch.randn(SHAPE, generator=torch.Generator().manual_seed(i))

    x_T = torch.randn(SHAPE, generator=torch.Generator().manual_seed(2**21))
    after = [step.x for step in sample(network, schedule, spec, x_T, noise)]
    return [Made(t, x, said, then) for (t, x, said), then in zip(asked, after, strict=True)]
