"""The scheduler linter: what the checkpoint's configuration asks, what a sampler does, and what a
peer would do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from ddim_core.diffusion.lint import MISSING_SIGNAL, Finding
from ddim_core.diffusion.scheduler_config import class_of
from ddim_core.samplers.catalogue import FLAGS, class_entries
from ddim_core.samplers.families import family_of, said_by, settled_own
from ddim_core.samplers.fits import class_behind
from ddim_core.samplers.name import TRAINED, SamplerName
from ddim_core.samplers.scheduler import Visited, entries_of, scheduler_for, set_steps
from ddim_core.samplers.values import DEPARTS, PLAYS_A_PART

PLAIN_STEPS = ("DDIMScheduler", "DDIMParallelScheduler", "PNDMScheduler")
"""Classes whose step goes from t to t - T // S, whatever timestep is listed next."""
LOW_ORDER_BELOW = 15  # steps, from which on diffusers' multistep solvers keep their order
MISMATCH = 0.01  # of a noise level, above which asking the network beside it is said
IDLE_STEP = 0.1  # of an even step, below which a flow's last step is said to be idle
NOISE_LEFT = 0.05  # noise over signal at the end above which it is a warning
NEUTRAL: dict[str, Any] = {
    "clip_sample": False, "thresholding": False, "rescale_betas_zero_snr": False,
    "set_alpha_to_one": True, "final_sigmas_type": "zero", "shift_terminal": None,
    "timestep_spacing": None, "steps_offset": 0, **dict.fromkeys(FLAGS, False),
}  # fmt: skip
"""Entries that change pictures, with the value that asks for nothing."""
CHANGES_X0 = ("clip_sample", "thresholding")


@dataclass(frozen=True)
class Pair:
    """A sampler on a checkpoint, as the linter looks at it."""

    name: SamplerName
    own: Mapping[str, Any]
    kind: str
    entries: Mapping[str, Any]
    steps: int


def lint_scheduler(
    name: SamplerName, own: Mapping[str, Any], steps: int, mu: float | None = None
) -> list[Finding]:
    """Says where what a sampler does differs from what the checkpoint's configuration asks, or from
    what a peer does.

    Args:
        name: The sampler.
        own: The checkpoint's scheduler_config.json, with its `_class_name`.
        steps: S.
        mu: The shift of sigmas by the size of the picture. Where the scheduler needs one and none
            is given, nothing is said of its steps.

    Returns:
        Findings, empty when there is nothing to say.

    Raises:
        ValueError: As `scheduler_for` and `set_steps`.
    """
    scheduler = scheduler_for(name, own)
    kind = class_behind(name, own)
    defaults = dict(class_entries(kind))
    pair = Pair(name, own, kind, {**defaults, **entries_of(name, own)}, steps)
    findings = [
        *_lint_ignored(pair),
        *_lint_carried(pair),
        *_lint_chosen(pair),
        *_lint_wrong(pair),
    ]
    if scheduler.config.get("use_dynamic_shifting") and mu is None:
        return findings
    done = set_steps(scheduler, name, steps, mu=mu)
    return [
        *findings,
        *_lint_count(pair, done),
        *_lint_last_step(pair, done),
        *_lint_start(pair, done),
        *_lint_landing(pair, done),
        *_lint_asked(pair, done, scheduler),
        *_lint_end(pair, done),
        *_lint_peers(pair, scheduler),
    ]


def _lint_ignored(pair: Pair) -> Iterator[Finding]:
    """What the checkpoint asks and the sampler's class has no entry for."""
    config, theirs = settled_own(pair.own), class_of(pair.own)
    for key, neutral in NEUTRAL.items():
        value = config.get(key, neutral)
        if (
            value in (neutral, None)
            or key in class_entries(pair.kind)
            or key == "final_sigmas_type"
        ):
            continue
        if key in ("set_alpha_to_one",) or (
            key == "steps_offset" and config.get("timestep_spacing") != "leading"
        ):
            continue  # where the last step lands is told by `_lint_end`
        if key == "rescale_betas_zero_snr":
            yield Finding(
                "zero_snr_ignored",
                "warning",
                f"The network was trained to zero SNR (rescale_betas_zero_snr), which {pair.kind} "
                "ignores: it samples from another schedule of betas.",
            )
            continue
        yield Finding(
            "config_ignored",
            "warning" if key in CHANGES_X0 else "info",
            f"The checkpoint's {theirs} has {key} = {value!r}, which {pair.kind} ignores.",
        )


def _lint_carried(pair: Pair) -> Iterator[Finding]:
    """What the sampler does as the checkpoint says, where the class by itself would do otherwise;
    and the other way round."""
    theirs = class_of(pair.own)
    if pair.kind == theirs:
        return
    known, said = class_entries(pair.kind), said_by(pair.own)
    given = {key for key, _ in pair.name.options}
    carried = [
        f"{key} = {value!r}"
        for key, value in said.items()
        if key in known and key not in TRAINED and key not in given
        and value != known[key] and pair.entries[key] == value
    ]  # fmt: skip
    if carried:
        yield Finding(
            "carried_over",
            "info",
            f"{pair.kind} takes from the checkpoint's {theirs}, as from_config does: "
            f"{', '.join(carried)}.",
        )
    before = settled_own(pair.own)
    silent = [
        f"{key} = {pair.entries[key]!r} (there {before[key]!r})"
        for key in NEUTRAL
        if key in known and key in before and key not in said and key not in given
        and key not in TRAINED and pair.entries[key] != before[key]
    ]  # fmt: skip
    if silent:
        yield Finding(
            "defaults_differ",
            "info",
            f"The checkpoint's configuration leaves to its class what {pair.kind} does by another "
            f"default: {', '.join(silent)}.",
        )


def _lint_chosen(pair: Pair) -> Iterator[Finding]:
    """What a name sets that departs from how the network was trained, or plays no part."""
    theirs = settled_own(pair.own)
    for key, value in pair.name.options:
        usual = theirs.get(key, class_entries(pair.kind)[key])
        said = "not set" if usual is None else repr(usual)
        if key in PLAYS_A_PART and not PLAYS_A_PART[key][1](pair.entries):
            yield Finding(
                "no_part",
                "warning",
                f"{key} = {value!r} plays no part in {pair.kind} as it is set: it counts only "
                f"{PLAYS_A_PART[key][0]}, so that this draws what the same without it draws.",
            )
        elif key in DEPARTS and value != usual and value is not False:
            yield Finding(
                "departs",
                "warning",
                f"{key} is {value!r} here and {said} in the checkpoint: {DEPARTS[key]}.",
            )


SDE_3 = {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}
"""In diffusers 0.42.1 the last coefficient of this step, (1 - exp(-2h) - 2h) / (2h)^2 - 0.5, has a
sign wrong: it must vanish with h, as it does with + 0.5, and goes to -1. With the exact score of a
mixture of Gaussians what is drawn has 11 % too large a standard deviation at S = 100, and 22 % at
200; with the sign mended it passes."""


def _lint_wrong(pair: Pair) -> Iterator[Finding]:
    multistep = pair.kind == "DPMSolverMultistepScheduler"
    if multistep and all(pair.entries.get(key) == value for key, value in SDE_3.items()):
        yield Finding(
            "wrong_in_diffusers",
            "warning",
            "The third-order SDE step of diffusers has a sign wrong: the more steps, the further "
            "what it draws spreads beyond the data; dpmpp_2m_sde has not.",
        )


def _lint_count(pair: Pair, done: Visited) -> Iterator[Finding]:
    asked = len(done.timesteps)
    if asked != pair.steps:
        yield Finding(
            "evaluations",
            "info",
            f"{pair.kind} asks the network {asked} times in {pair.steps} steps.",
        )
    order = pair.entries.get("solver_order", 1)
    lowers = pair.entries.get("lower_order_final") and isinstance(order, int) and order > 1
    if lowers and pair.steps < LOW_ORDER_BELOW:
        yield Finding(
            "lower_order_final",
            "info",
            f"With fewer than {LOW_ORDER_BELOW} steps {pair.kind} takes the last ones in lower "
            f"order than {order} (lower_order_final).",
        )


def _lint_last_step(pair: Pair, done: Visited) -> Iterator[Finding]:
    """A flow's schedulers of diffusers spread their steps from 1 to 1 / T, and then step to 0."""
    if family_of(pair.own) != "flow" or len(done.sigmas) < 2:
        return
    before = done.sigmas[-2]
    if done.sigmas[-1] == 0.0 and before < IDLE_STEP / pair.steps:
        even = [round(1 - i / pair.steps, 3) for i in range(pair.steps)]
        yield Finding(
            "idle_last_step",
            "info",
            f"The last step of {pair.kind} goes from sigma {before:.3g} to 0 and changes next to "
            f"nothing: {pair.steps} steps draw as {pair.steps - 1} even ones would. Sigmas that "
            "are listed, as Flux's pipeline does, waste none: flow_euler?sigmas="
            f"{json.dumps(even, separators=(',', ':'))}.",
        )


def _lint_start(pair: Pair, done: Visited) -> Iterator[Finding]:
    if family_of(pair.own) != "vp" or not done.sigmas:
        return
    first, last = max(done.timesteps), settled_own(pair.own)["num_train_timesteps"] - 1
    signal = 1.0 / (1.0 + done.sigmas[0] ** 2)
    if first < last:
        spacing = pair.entries.get("timestep_spacing")
        how = f", spacing {spacing!r}" if spacing and not pair.name.n_listed else ""
        peer = "; trailing spacing would start at the last" if spacing == "leading" else ""
        yield Finding(
            "late_start",
            "warning" if signal > MISSING_SIGNAL else "info",
            f"Sampling starts from pure noise at timestep {first:g} of 0..{last}{how}, where the "
            f"network was trained with alpha_bar = {signal:.3g} of signal{peer}.",
        )
    if signal < 1e-7 and pair.entries.get("prediction_type") == "epsilon":
        yield Finding(
            "zero_snr_epsilon",
            "error",
            f"alpha_bar is 0 at timestep {first:g}, where predicted noise says nothing about x0.",
        )


def _lint_landing(pair: Pair, done: Visited) -> Iterator[Finding]:
    if pair.kind not in PLAIN_STEPS:
        return
    visited = sorted(set(done.timesteps), reverse=True)
    stride = settled_own(pair.own)["num_train_timesteps"] // pair.steps
    halves = (stride, stride // 2) if pair.kind == "PNDMScheduler" else (stride,)
    other = [(t, s) for t, s in pairwise(visited) if t - s not in halves]
    if other:
        t, s = other[0]
        yield Finding(
            "steps_elsewhere",
            "warning",
            f"{len(other)} of {pair.steps} steps of {pair.kind} land beside the timestep that the "
            f"network is asked at next, first from {t:g} to {t - stride:g} instead of {s:g}: S "
            "does not divide T.",
        )


def _lint_asked(pair: Pair, done: Visited, scheduler: Any) -> Iterator[Finding]:
    """Where the network is asked at another noise level than that of the images."""
    n_train = settled_own(pair.own).get("num_train_timesteps")
    if not n_train or len(done.sigmas) != len(done.timesteps) + 1:
        return
    t, sigmas = np.array(done.timesteps), np.array(done.sigmas[:-1])
    if family_of(pair.own) == "flow":
        off = float(np.abs(t / n_train - sigmas).max())
        if off > 1e-5:
            yield Finding(
                "whole_timesteps",
                "info",
                f"{pair.kind} asks the network at whole timesteps, up to {off:.2g} beside the "
                "images' sigma.",
            )
    elif family_of(pair.own) == "vp" and hasattr(scheduler, "alphas_cumprod"):
        alpha_bar = scheduler.alphas_cumprod.double().numpy()
        table = np.sqrt((1.0 - alpha_bar) / np.maximum(alpha_bar, 2.0**-24))
        off = float(np.abs(np.interp(t, np.arange(len(table)), table) / sigmas - 1.0).max())
        if off > MISMATCH:
            yield Finding(
                "whole_timesteps",
                "info",
                f"{pair.kind} asks the network at noise levels up to {off:.0%} beside those of the "
                "images: its timesteps are whole numbers.",
            )
    if pair.name.own_sigmas and not np.allclose(sigmas, pair.name.own_sigmas, rtol=1e-3):
        yield Finding(
            "sigmas_shifted",
            "info",
            f"{pair.kind} shifts the sigmas that are listed: it visits "
            f"{', '.join(f'{sigma:.3g}' for sigma in sigmas)}.",
        )


def _lint_end(pair: Pair, done: Visited) -> Iterator[Finding]:
    if not done.sigmas or not (end := done.sigmas[-1]) > 0.0 or pair.entries.get("invert_sigmas"):
        return
    yield Finding(
        "final_sigma",
        "warning" if end > NOISE_LEFT else "info",
        f"The last step of {pair.kind} ends at sigma = {end:.3g}, which stays in the images as "
        "noise; peers end at 0, clean images.",
    )


def _lint_peers(pair: Pair, scheduler: Any) -> Iterator[Finding]:
    start = float(getattr(scheduler, "init_noise_sigma", 1.0))
    if family_of(pair.own) == "vp" and start != 1.0:
        yield Finding(
            "peer_scales_nothing",
            "info",
            f"DDPMPipeline of diffusers calls no scale_model_input and starts at noise of std 1, "
            f"where {pair.kind} needs {start:.3g}: it draws garbage; here both are done.",
        )
