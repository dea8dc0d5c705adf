"""Whether a pipeline, a setting and conditions belong together: refused in words before drawing."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ddim_core.common.checks import nearest
from ddim_core.pipelines.arguments import (
    Conditions,
    Setting,
    blank_conditions,
    call_arguments,
    placed,
)
from ddim_core.pipelines.opening import DTYPES, OpenedPipeline
from ddim_core.pipelines.rehearsal import rehearse
from ddim_core.pipelines.stage import take_own_steps
from ddim_core.samplers.scheduler import Visited, scheduler_for, takes_eta, visited

GUIDED = 1.0  # guidance above it is done where it is real


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


def where_it_asks(opened: OpenedPipeline, setting: Setting) -> Visited:
    """Rehearses a pair up to the network's first evaluation, and returns where it would be asked.

    The pipeline's own call sets the steps, with the shift by the picture's size or the sigmas that
    it hands to its scheduler: this is what is done.

    Raises:
        ValueError: As `require_setting`; or if the pipeline's call and the scheduler do not fit
            each other, such as sigmas that the scheduler takes none of.
    """
    require_setting(opened, setting)
    scheduler = scheduler_for(setting.sampler, opened.scheduler)
    take_own_steps(scheduler, setting)
    device, dtype = opened.device, DTYPES[opened.dtype]
    conditions = placed(blank_conditions(opened.pipeline, opened.takes), device, dtype)
    latents = torch.zeros(1, *opened.shape, dtype=opened.latent_dtype, device=device)
    guidance = setting.guidance if opened.takes.guidance == "embedded" else 1.0
    arguments = call_arguments(
        opened.takes, conditions, [torch.Generator().manual_seed(0)], setting.steps, guidance,
        setting.eta, opened.size, latents if opened.takes.latents else None,
    )  # fmt: skip
    return visited(rehearse(opened.pipeline, scheduler, arguments).scheduler)


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
