"""Whether a pipeline, a size, a setting and conditions belong together: refused in words before
drawing."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch

from ddim_core.common.checks import nearest
from ddim_core.common.plain_files import is_regular
from ddim_core.pipelines.arguments import (
    Conditions,
    Setting,
    blank_conditions,
    call_arguments,
    placed,
    rows_for,
)
from ddim_core.pipelines.guidance.halves import Halves, found_halves
from ddim_core.pipelines.opening import (
    DTYPES,
    TEXTS,
    TRAINED,
    OpenedPipeline,
    factor_of,
    require_size,
)
from ddim_core.pipelines.parts import INDEX, described_parts, part_class
from ddim_core.pipelines.rehearsal import REHEARSED_STEPS, Rehearsed, rehearse, start_of
from ddim_core.pipelines.stage import take_own_steps
from ddim_core.pipelines.takes import Takes, networks_of, what_it_takes
from ddim_core.safe_files.settings import read_settings
from ddim_core.samplers.catalogue import OWN
from ddim_core.samplers.name import parse_sampler
from ddim_core.samplers.scheduler import Visited, scheduler_for, takes_eta, visited

GUIDED = 1.0  # guidance above it is done where it is real
REHEARSED_GUIDANCE = 2.0
_halves: WeakKeyDictionary[OpenedPipeline, Halves] = WeakKeyDictionary()  # each is found once


def require_setting(opened: OpenedPipeline, setting: Setting) -> None:
    """Makes sure, without the network, that a pipeline has what a setting asks for.

    Raises:
        ValueError: If the sampler does not fit the pipeline's own scheduler, or takes no eta, or
            the pipeline takes no guidance.
    """
    scheduler = scheduler_for(setting.sampler, opened.scheduler)
    if setting.eta != 0.0 and not takes_eta(scheduler):
        raise ValueError(
            f"eta is {setting.eta}; {setting.sampler.text} has none, so that it must be 0"
        )
    if opened.takes.guidance == "real" and setting.guidance < 1.0:
        raise ValueError(
            f"guidance is {setting.guidance}; the call of a {opened.name} does none at 1 and "
            "below, so that it must be at least 1 (none)"
        )
    if opened.takes.guidance == "none" and setting.guidance != 1.0:
        raise ValueError(
            f"guidance is {setting.guidance}; {opened.name} takes none, so that it must be 1"
        )


def sized(opened: OpenedPipeline, resolution: int) -> OpenedPipeline:
    """Returns an opened pipeline that draws another size; its networks are the same.

    Args:
        opened: As it opens by itself.
        resolution: Height and width in pixels.

    Raises:
        ValueError: As `require_size`; or if the call cannot begin with such a size.
    """
    pipeline, takes = opened.pipeline, opened.takes
    require_size(pipeline, takes, resolution)
    first, shape = start_of(pipeline, takes, pipeline.scheduler, (resolution, resolution))
    if len(first.entered) == 4 and (side := first.entered[-1] * factor_of(pipeline)) != resolution:
        raise ValueError(
            f"resolution is {resolution}, and a {opened.name} would draw {side} pixels; give {side}"
        )
    own = TRAINED.format(opened.height, opened.width)
    notes = tuple(note for note in opened.notes if note != own)
    return replace(opened, height=resolution, width=resolution, shape=shape, notes=notes)


def drafted(folder: Path) -> Any:
    """Returns the pipeline of a folder without weights and text encoders, in no time: to ask what
    its call takes. None where it cannot be made so, which `open_pipeline` says in words."""
    try:
        parts = described_parts(folder)
        made = dict.fromkeys(inspect.signature(parts.kind.__init__).parameters.keys() - {"self"})
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in parts.opened:
                if not name.startswith((*TEXTS, "scheduler")):
                    config = read_settings(folder / name / "config.json")
                    made[name] = part_class(folder, name).from_config(config)
        return parts.kind(**made)
    except Exception:  # other people's files can be wrong in every way
        return None


def require_size_of(folder: Path, resolution: int) -> None:
    """Makes sure that the pipeline of a folder draws a size, before any weights are read.

    Raises:
        ValueError: If it does not; what is no pipeline, or none that can be told without its
            weights, is told once it is opened.
    """
    draft = drafted(folder) if is_regular(folder / INDEX) else None
    if draft is None:
        return
    takes = what_it_takes(draft)
    own = getattr(draft, networks_of(draft)[0]).config.get("sample_size")
    is_own = isinstance(own, int) and own * factor_of(draft) == resolution
    if "height" in takes.parameters or (isinstance(own, int) and not is_own):
        require_size(draft, takes, resolution)


def where_it_asks(opened: OpenedPipeline, setting: Setting) -> Visited:
    """Rehearses a pair up to the network's first evaluation, and returns where it would be asked.

    The pipeline's own call sets the steps, with the shift by the picture's size or the sigmas that
    it hands to its scheduler: this is what is done.

    Raises:
        ValueError: As `require_setting`, and `halves_of` with an interval of guidance; or if the
            pipeline's call and the scheduler do not fit each other, such as sigmas that the
            scheduler takes none of.
    """
    require_setting(opened, setting)
    if setting.interval is not None:
        halves_of(opened, setting.interval)
    guidance = setting.guidance if opened.takes.guidance == "embedded" else 1.0
    return visited(_rehearsed(opened, replace(setting, guidance=guidance)).scheduler)


def halves_of(opened: OpenedPipeline, interval: tuple[float, float]) -> Halves:
    """Finds how a pipeline's call asks its network for guidance, by three rehearsals.

    Args:
        opened: The pipeline.
        interval: Of noise levels, outside of which guidance is to be left out; for messages.

    Raises:
        ValueError: If it does none with a further evaluation of the network, or in a way in which
            it cannot be left out at single steps.
    """
    _require_second(opened.name, opened.takes, interval)
    if opened in _halves:
        return _halves[opened]
    asked = Setting(parse_sampler(OWN), REHEARSED_STEPS, REHEARSED_GUIDANCE)
    try:
        one, other = (_rehearsed(opened, asked, prompt=prompt) for prompt in (0, 1))
        two = _rehearsed(opened, asked, n_images=2)
        return _halves.setdefault(opened, found_halves(one.asked, other.asked, two.asked))
    except ValueError as error:
        raise ValueError(
            f"guidance_interval is {interval[0]:g},{interval[1]:g}, and the call of a "
            f"{opened.name} {error}, so that its guidance cannot be left out at some steps; leave "
            "the interval out"
        ) from error


def require_interval_of(folder: Path, interval: tuple[float, float]) -> None:
    """Makes sure that the pipeline of a folder may take an interval of guidance, before any weights
    are read.

    Raises:
        ValueError: If its guidance is no second evaluation of its network.
    """
    draft = drafted(folder) if is_regular(folder / INDEX) else None
    if draft is not None:
        _require_second(type(draft).__name__, what_it_takes(draft), interval)


def _require_second(name: str, takes: Takes, interval: tuple[float, float]) -> None:
    if takes.guidance != "real":
        is_told = takes.guidance == "embedded"
        raise ValueError(
            f"guidance_interval is {interval[0]:g},{interval[1]:g}, and a {name} "
            f"{'tells its network the guidance as a number' if is_told else 'takes no guidance'}, "
            "so that there is no second evaluation to leave out; leave the interval out"
        )


def _rehearsed(
    opened: OpenedPipeline, setting: Setting, n_images: int = 1, prompt: int = 0
) -> Rehearsed:
    """Rehearses a call for stand-ins of one prompt, of which there are several, and of one x_T."""
    scheduler = scheduler_for(setting.sampler, opened.scheduler)
    take_own_steps(scheduler, setting)
    device, dtype = opened.device, DTYPES[opened.dtype]
    blank = blank_conditions(opened.pipeline, opened.takes)
    led = [name for name in blank if not name.startswith("negative_") and "mask" not in name]
    blank |= {name: blank[name] + prompt for name in led}
    conditions = rows_for(placed(blank, device, dtype), [0] * n_images)
    latents = torch.zeros(n_images, *opened.shape, dtype=opened.latent_dtype, device=device)
    streams = [torch.Generator().manual_seed(0) for _ in range(n_images)]
    arguments = call_arguments(
        opened.takes, conditions, streams, setting.steps, setting.guidance, setting.eta,
        opened.size, latents if opened.takes.latents else None,
    )  # fmt: skip
    return rehearse(opened.pipeline, scheduler, arguments)


def require_conditions(
    opened: OpenedPipeline, conditions: Conditions, guidance: float, n_images: int
) -> None:
    """Makes sure that conditions are those that a pipeline's call takes.

    Raises:
        ValueError: If prompts or classes are missing or not wanted, have other names, another
            number of rows, or guidance lacks what it leads away from.
    """
    takes = opened.takes
    if n_images < 1:
        raise ValueError("there are no images to draw; give at least one index")
    if takes.modality == "unconditional" and conditions:
        raise ValueError(f"{opened.name} takes no prompts and no classes; leave them out")
    if takes.modality != "unconditional" and not conditions:
        wanted = "classes" if takes.modality == "class-to-image" else "prompts, encoded"
        raise ValueError(f"{opened.name} draws for {wanted}; give {', '.join(takes.conditions)}")
    for name, value in conditions.items():
        if name not in takes.conditions:
            raise ValueError(
                f"{opened.name} takes no {name!r}{nearest(name, takes.conditions)}; it takes "
                f"{', '.join(takes.conditions)}"
            )
        if len(value) not in (1, n_images):
            raise ValueError(
                f"{name} has {len(value)} rows for {n_images} images; it must have 1 or {n_images}"
            )
    _require_classes(opened, conditions)
    leads_away = any(name.startswith("negative_") for name in conditions)
    can = [name for name in takes.conditions if name.startswith("negative_")]
    if takes.guidance == "real" and guidance > GUIDED and can and not leads_away:
        raise ValueError(
            f"guidance is {guidance}, and what it leads away from is missing; give {', '.join(can)}"
        )


def _require_classes(opened: OpenedPipeline, conditions: Mapping[str, torch.Tensor]) -> None:
    labels = conditions.get("class_labels")
    if labels is None or opened.n_classes is None:
        return
    wrong = labels[(labels < 0) | (labels >= opened.n_classes)]
    if len(wrong):
        raise ValueError(
            f"a class is {int(wrong[0])}; {opened.name} knows classes 0 to {opened.n_classes - 1}"
        )
