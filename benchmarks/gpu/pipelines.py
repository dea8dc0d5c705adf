"""Pipelines on a card: ours beside the bare network, and beside diffusers' own call."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu import models
from benchmarks.gpu.record import Figure, Record
from benchmarks.gpu.timing import in_turn, peak_gb, ratio, seconds, speed
from ddim_core.devices.arithmetic import arithmetic
from ddim_core.devices.placing import compiled
from ddim_core.pipelines.arguments import Setting
from ddim_core.pipelines.drawing import draw, ready_for_card
from ddim_core.pipelines.opening import OpenedPipeline, _described
from ddim_core.pipelines.parts import PipelineParts
from ddim_core.pipelines.takes import what_it_takes
from ddim_core.samplers.name import parse_sampler

GUIDANCE = 7.5
USUAL_BATCH = 8


def opened(pipeline: Any, dtype: str, device: str) -> OpenedPipeline:
    """A pipeline in memory as the project opens one of a folder."""
    scheduler = {**pipeline.scheduler.config, "_class_name": type(pipeline.scheduler).__name__}
    parts = PipelineParts(Path(), type(pipeline), (), (), scheduler, None, ())
    return _described(pipeline, what_it_takes(pipeline), parts, dtype, device, 0)


def measure(record: Record, name: str, tiny: bool, device: str, by_compiler: bool) -> None:
    """All figures of one pipeline in bfloat16."""
    steps, batch = (2, 2) if tiny else (20, {"sd15": 16, "sdxl": 4, "dit": 64}[name])
    dtype, repeats = torch.bfloat16, 1 if tiny else 2
    pipeline = getattr(models, name)(tiny, device, dtype)
    pipeline.set_progress_bar_config(disable=True)
    usual = min(USUAL_BATCH, batch)
    told = models.conditions(name, tiny, batch)
    theirs = partial(_theirs, pipeline, name, told, steps, device, dtype)
    taken_theirs = in_turn(repeats, lambda: theirs(usual))[0]
    theirs_gb = peak_gb(lambda: theirs(batch))
    mine = ready_for_card(opened(pipeline, "bfloat16", device), by_compiler=False)
    setting = Setting(parse_sampler("own"), steps, GUIDANCE, 0.0, 0)

    def ours() -> None:
        with torch.inference_mode(), arithmetic("bfloat16"):
            draw(mine, setting, range(batch), told, batch)

    taken, bare = in_turn(repeats, ours, _bare(mine, setting, batch, told))
    ours_gb = peak_gb(ours)
    how = f"bfloat16, S = {steps}, guided, batch {batch}"
    record.add(
        ratio(f"sampling / bare calls, {name}", taken, bare, "<= 1.05", f"{how}; with the decoder"),
        _over(f"ours / diffusers' pipeline, images/s, {name}", batch, taken, usual, taken_theirs,
              ">= 1.5", f"{how}; theirs bfloat16, batch {usual}"),
        speed(f"ours, {name}", batch, taken, told=how),
        speed(f"diffusers' pipeline, {name}", usual, taken_theirs, told=f"batch {usual}"),
    )  # fmt: skip
    if theirs_gb:
        record.add(
            Figure(f"memory, ours / the pipeline's own, {name}", ours_gb / theirs_gb, "ratio",
                   "<= 1.2", told=f"{ours_gb:.1f} and {theirs_gb:.1f} GB, batch {batch}")
        )  # fmt: skip
    if by_compiler:
        _compiled(record, pipeline, mine, name, ours, lambda: theirs(batch), batch, how)


def _compiled(
    record: Record,
    pipeline: Any,
    mine: OpenedPipeline,
    name: str,
    ours: Callable[[], None],
    theirs: Callable[[], None],
    batch: int,
    how: str,
) -> None:
    """The same once more with compiled networks: ours, then theirs."""
    network = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
    plain = network.forward
    network.forward = compiled(plain)
    first = seconds(ours)
    taken = in_turn(2, ours)[0]
    record.add(
        speed(f"ours, compiled, {name}", batch, taken, told=f"{how}; first call {first:.0f} s")
    )
    network.forward = plain
    network.to(memory_format=torch.contiguous_format)
    network.forward = torch.compile(plain)  # the way of diffusers' documentation
    first = seconds(theirs)
    taken_theirs = in_turn(2, theirs)[0]
    network.forward = plain
    record.add(
        speed(f"diffusers' pipeline, compiled, {name}", batch, taken_theirs,
              told=f"batch {batch}; first call {first:.0f} s"),
        _over(f"ours / diffusers' pipeline, both compiled, images/s, {name}", batch, taken, batch,
              taken_theirs, ">= 1.0", how),
    )  # fmt: skip


def _over(
    name: str, n: int, ours: list[float], n_theirs: int, theirs: list[float], goal: str, told: str
) -> Figure:
    each = [b / n_theirs for b in theirs], [a / n for a in ours]
    return ratio(name, *each, goal, told)


def _theirs(
    pipeline: Any,
    name: str,
    told: dict[str, Tensor],
    steps: int,
    device: str,
    dtype: torch.dtype,
    n: int,
) -> None:
    """diffusers' own call at its usual settings."""
    if name == "dit":
        pipeline(class_labels=told["class_labels"][:n].tolist(), guidance_scale=GUIDANCE,
                 num_inference_steps=steps, generator=torch.Generator(device).manual_seed(0),
                 output_type="np")  # fmt: skip
        return
    given = {key: value[:n].to(device, dtype) for key, value in told.items()}
    with torch.inference_mode():
        pipeline(**given, num_inference_steps=steps, guidance_scale=GUIDANCE, output_type="np")


def _bare(
    mine: OpenedPipeline, setting: Setting, batch: int, told: dict[str, Tensor]
) -> Callable[[], None]:
    """The calls of the network and of the decoder that a run makes, and nothing else: noted in one
    run, made again with the same tensors."""
    calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
    pipeline = mine.pipeline
    network = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
    decoder = pipeline.vae

    def noted(plain: Any) -> Any:
        def called(*args: Any, **kwargs: Any) -> Any:
            calls.append((plain, args, kwargs))
            return plain(*args, **kwargs)

        return called

    forward, decode = network.forward, decoder.decode
    import functools

    network.forward = functools.wraps(forward)(noted(forward))
    decoder.decode = functools.wraps(decode)(noted(decode))
    with torch.inference_mode():
        draw(mine, setting, range(batch), told, batch)
    network.forward, decoder.decode = forward, decode

    def again() -> None:
        with torch.inference_mode(), arithmetic("bfloat16"):
            for plain, args, kwargs in calls:
                plain(*args, **kwargs)

    return again
