"""The schedule linter: what was asked, what is done, and where a peer would do otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ddim_core.diffusion.schedule import (
    CLEAN,
    NoiseSchedule,
    listed_by_peers,
    step_pairs,
    timesteps,
)
from ddim_core.diffusion.scheduler_config import USUAL, class_defaults, class_of, settled, silent_on
from ddim_core.diffusion.specs import SamplerSpec, SchedulerSpec, Spacing

AnySampler = SamplerSpec | SchedulerSpec
GUIDANCE = re.compile(r"\bg=")  # in a line's short name

MISSING_SIGNAL = 0.01
"""Signal power at the first visited timestep above which starting from pure noise is a warning."""


@dataclass(frozen=True)
class Finding:
    """One thing a user of a schedule should know.

    Attributes:
        code: A stable name, for programs.
        severity: `info`; `warning` (pictures change); `error` (sampling is refused or senseless).
        message: One sentence with the numbers.
    """

    code: str
    severity: Literal["info", "warning", "error"]
    message: str


@dataclass(frozen=True)
class Asked:
    """A scheduler's configuration, where it is silent with the defaults of diffusers' class."""

    config: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """The class that the configuration is of."""
        return class_of(self.config)

    def value(self, name: str) -> Any:
        """What diffusers goes by; None where neither the config nor its class has such an entry."""
        if name in self.config:
            return self.config[name]
        return (class_defaults(self.kind) or {}).get(name)

    def said(self, name: str) -> str:
        """The beginning of a sentence that says who asks for an entry's value."""
        value = self.value(name)
        if name not in self.config:
            return f"The config leaves {name} to diffusers' default of {self.kind} ({value!r})"
        ignored = f" (which {self.kind} of diffusers ignores)" if self.ignores(name) else ""
        return f"The config says {name} = {value!r}{ignored}"

    def ignores(self, name: str) -> bool:
        """Whether diffusers' class of the configuration has no such entry."""
        defaults = class_defaults(self.kind)
        return defaults is not None and name not in defaults


def lint(
    schedule: NoiseSchedule,
    spec: SamplerSpec,
    diffusers_config: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """Says where what is done differs from what was asked, or from what a peer does.

    Args:
        schedule: The noise schedule that will be sampled.
        spec: The sampler setting.
        diffusers_config: The config of the diffusers scheduler that came with the checkpoint.

    Returns:
        Findings, empty when there is nothing to say.

    Raises:
        ValueError: As `timesteps`, and as `settled` of the config.
    """
    chosen = timesteps(schedule.n_train, spec.steps, spec.spacing, spec.steps_offset)
    findings = [
        *_lint_count(schedule.n_train, spec, chosen),
        *_lint_start(schedule, spec, chosen[0]),
        *_lint_diffusers_steps(schedule.n_train, spec, chosen),
    ]
    if diffusers_config is not None:
        settled(diffusers_config)
        findings += _lint_config(schedule, spec, diffusers_config)
        findings += _lint_config_steps(schedule.n_train, spec, diffusers_config, chosen)
    return findings


def by_steps(found: Iterable[tuple[AnySampler, list[Finding]]]) -> list[str]:
    """Says each finding once, with the S it was found at: "S = 5, 10: ..."; and with the lines,
    where others of the same S do not have it: "S = 5, 10, sigma-hat (clips): ...".

    Args:
        found: All sampler settings, each with what was found there.
    """
    settings = list(found)
    where: dict[str, list[AnySampler]] = {}
    for spec, findings in settings:
        for finding in findings:
            where.setdefault(finding.message, []).append(spec)
    return [
        f"{_named(told, [spec for spec, _ in settings])}: {message}"
        for message, told in where.items()
    ]


def _named(told: list[AnySampler], settings: list[AnySampler]) -> str:
    steps = list(dict.fromkeys(spec.steps for spec in told))
    names = [f"S = {', '.join(map(str, steps))}"]
    if any(spec.steps in steps and spec not in told for spec in settings):
        lines = dict.fromkeys(spec.line for spec in told)
        names += [GUIDANCE.sub("guidance ", line).replace("=", " = ") for line in lines]
    return ", ".join(names)


def _lint_count(n_train: int, spec: SamplerSpec, chosen: list[int]) -> Iterator[Finding]:
    if len(chosen) != spec.steps:
        code = "extra_steps" if len(chosen) > spec.steps else "duplicate_steps"
        why = "S does not divide T" if len(chosen) > spec.steps else "equal timesteps count once"
        yield Finding(
            code,
            "warning" if len(chosen) > spec.steps else "info",
            f"{spec.steps} steps were asked for and {len(chosen)} are taken: spacing "
            f"{spec.spacing!r}, T = {n_train}, {why}.",
        )
    if spec.steps_offset and spec.spacing != "leading":
        yield Finding(
            "offset_ignored",
            "warning",
            f"steps_offset {spec.steps_offset} has no effect with spacing {spec.spacing!r}.",
        )


def _lint_start(schedule: NoiseSchedule, spec: SamplerSpec, first: int) -> Iterator[Finding]:
    signal, last = schedule.at(first), schedule.n_train - 1
    if signal == 0.0 and spec.prediction_type == "epsilon":
        yield Finding(
            "zero_snr_epsilon",
            "error",
            f"alpha_bar is 0 at timestep {first}, where a noise prediction says nothing about x0; "
            "use a model of type v_prediction or sample, or a spacing that starts lower.",
        )
    if first < last or signal > MISSING_SIGNAL:
        yield Finding(
            "late_start",
            "warning" if signal > MISSING_SIGNAL else "info",
            f"Sampling starts from pure noise at timestep {first} of 0..{last}, where the model "
            f"was trained with alpha_bar = {signal:.3g} of signal (at {last}: "
            f"{schedule.at(last):.3g}).",
        )


def _lint_diffusers_steps(n_train: int, spec: SamplerSpec, chosen: list[int]) -> Iterator[Finding]:
    if spec.spacing not in ("leading", "linspace", "trailing"):
        return
    stride = n_train // spec.steps
    other = [(t, s) for t, s in step_pairs(chosen) if max(t - stride, CLEAN) != s]
    if other:
        t, s = other[0]
        yield Finding(
            "diffusers_steps_elsewhere",
            "info",
            f"{len(other)} of {len(chosen)} steps land elsewhere than in diffusers, first from {t} "
            f"to {s}, the next listed timestep, where diffusers goes to {max(t - stride, CLEAN)}.",
        )
    if listed_by_peers(n_train, spec.steps, spec.spacing, spec.steps_offset)[-1] == CLEAN:
        yield Finding(
            "diffusers_timestep_minus_one",
            "info",
            f"Diffusers lists {spec.steps + 1} timesteps for {spec.steps} steps of T = {n_train}, "
            "the last one -1, by rounding; it is left out here.",
        )


def _lint_config(
    schedule: NoiseSchedule, spec: SamplerSpec, config: Mapping[str, Any]
) -> Iterator[Finding]:
    asked = Asked(config)
    if asked.value("set_alpha_to_one") is False:
        yield Finding(
            "diffusers_final_alpha",
            "info",
            f"{asked.said('set_alpha_to_one')}: diffusers ends at alpha_bar = "
            f"{schedule.at(0):.6g} of timestep 0, and the last step here at 1, clean data.",
        )
    prediction_type = config.get("prediction_type", "epsilon")
    if prediction_type != spec.prediction_type:
        yield Finding(
            "prediction_type_differs",
            "error",
            f"The config says prediction_type {prediction_type!r} and the sampler reads the "
            f"model's output as {spec.prediction_type!r}.",
        )
    yield from _lint_clipping(spec, asked)
    yield from _lint_betas(asked)


def _lint_clipping(spec: SamplerSpec, asked: Asked) -> Iterator[Finding]:
    clip, ours = asked.value("clip_sample"), spec.dynamic_threshold
    if asked.value("thresholding") or ours is not None:
        yield from _lint_thresholds(spec, asked)
    if ours is not None:  # which is done in place of clipping
        return
    if clip is not None and bool(clip) != spec.clip:
        yield Finding(
            "clip_differs",
            "info",
            f"{asked.said('clip_sample')} and the sampler clip = {spec.clip}.",
        )
    widest = asked.value("clip_sample_range")
    widest = 1.0 if widest is None else float(widest)
    if clip and widest != (spec.clip_range if spec.clip else 1.0):
        r = f"{spec.clip_range:g}"
        done = f"clips it to [-{r}, {r}]" if spec.clip else "does not clip it"
        yield Finding(
            "clip_range_differs",
            "warning" if spec.clip else "info",
            f"{asked.said('clip_sample_range')}: diffusers clips x0 to [-{widest:g}, {widest:g}], "
            f"and the sampler {done}.",
        )


def _lint_thresholds(spec: SamplerSpec, asked: Asked) -> Iterator[Finding]:
    """Of dynamic thresholding, which diffusers does in place of clipping, and the sampler too."""
    names = ("dynamic_thresholding_ratio", "sample_max_value")
    theirs = [asked.value(name) for name in names]
    quantile, widest = spec.dynamic_threshold, f"{spec.clip_range:g}"
    if not asked.value("thresholding"):
        yield Finding(
            "thresholding_differs",
            "warning",
            f"{asked.said('thresholding')}, and the sampler scales every image's x0 by its "
            f"quantile {quantile:g}, at most {widest}.",
        )
    elif theirs != [quantile, spec.clip_range]:
        told = zip(names, theirs, strict=True)
        more = ", ".join(f"{name} = {value!r}" for name, value in told if value is not None)
        done = (
            f"which the sampler never does (clip = {spec.clip})"
            if quantile is None
            else f"the sampler by its quantile {quantile:g}, at most {widest}"
        )
        yield Finding(
            "thresholding_differs",
            "warning",
            f"{asked.said('thresholding')} ({more}): diffusers scales every image's x0 by a "
            f"quantile of its own, {done}.",
        )


def _lint_betas(asked: Asked) -> Iterator[Finding]:
    """What of the noise schedule is not in a scheduler's configuration, and what it ignores."""
    if "_class_name" not in asked.config:  # no whole configuration
        return
    if missing := silent_on(asked.config):
        taken = ", ".join(f"{name} = {value!r}" for name, value in missing)
        known = class_defaults(asked.kind) is not None
        whose = asked.kind if known else f"{USUAL} (it has no {asked.kind})"
        yield Finding(
            "default_betas",
            "info",
            f"The config does not say {', '.join(name for name, _ in missing)}: diffusers' "
            f"default of {whose} is taken, {taken}.",
        )
    if asked.config.get("rescale_betas_zero_snr") and asked.ignores("rescale_betas_zero_snr"):
        yield Finding(
            "zero_snr_ignored",
            "warning",
            f"The config says rescale_betas_zero_snr = True, which {asked.kind} of diffusers "
            "ignores; here the schedule ends at zero SNR.",
        )


def _lint_config_steps(
    n_train: int, spec: SamplerSpec, config: Mapping[str, Any], chosen: list[int]
) -> Iterator[Finding]:
    spacing: Any = config.get("timestep_spacing")
    if spacing not in get_args(Spacing):
        return
    offset = int(config.get("steps_offset", 0))
    theirs = listed_by_peers(n_train, spec.steps, spacing, offset)
    if theirs != chosen:
        yield Finding(
            "diffusers_timesteps_differ",
            "info",
            f"The config says timestep_spacing {spacing!r} with steps_offset {offset}: diffusers "
            f"visits {_described(theirs)}, and the sampler, spacing {spec.spacing!r} with "
            f"steps_offset {spec.steps_offset}, {_described(chosen)}.",
        )


def _described(timesteps_: list[int]) -> str:
    shown = [str(t) for t in timesteps_[:3]]
    more = ", ..." if len(timesteps_) > len(shown) else ""
    return f"{len(timesteps_)} timesteps {', '.join(shown)}{more} down to {timesteps_[-1]}"
