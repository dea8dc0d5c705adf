"""Pipelines on a card: ours beside the bare network, and beside diffusers' own call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

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


@dataclass(frozen=True, eq=False)
class Case:
    """A pipeline with what it is asked for, ours and diffusers' own.

    Attributes:
        pipeline, mine: In memory, and as the project opens it.
        told: What its images are drawn for.
        batch, usual: Images at once, ours and at diffusers' usual settings.
        how: In words.
    """

    pipeline: Any
    mine: OpenedPipeline
    told: dict[str, Tensor]
    setting: Setting
    batch: int
    usual: int
    how: str
    theirs: Callable[[int], None]

    @classmethod
    def of(cls, name: str, tiny: bool, device: str) -> Case:
        """One in bfloat16."""
        steps, batch = (2, 2) if tiny else (20, {"sd15": 16, "sdxl": 4, "dit": 64}[name])
        pipeline = getattr(models, name)(tiny, device, torch.bfloat16)
        pipeline.set_progress_bar_config(disable=True)
        told = models.conditions(name, tiny, batch)
        theirs = partial(_theirs, pipeline, name, told, steps, device, torch.bfloat16)
        mine = ready_for_card(opened(pipeline, "bfloat16", device), by_compiler=False)
        setting = Setting(parse_sampler("own"), steps, GUIDANCE, 0.0, 0)
        how = f"bfloat16, S = {steps}, guided, batch {batch}"
        return cls(pipeline, mine, told, setting, batch, min(USUAL_BATCH, batch), how, theirs)

    @property
    def network(self) -> Any:
        """What draws."""
        pipeline = self.pipeline
        return pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer

    def ours(self) -> None:
        """Draws one batch."""
        with torch.inference_mode(), arithmetic("bfloat16"):
            draw(self.mine, self.setting, range(self.batch), self.told, self.batch)


def measure(record: Record, name: str, tiny: bool, device: str) -> None:
    """All figures of one pipeline."""
    repeats, case = 1 if tiny else 2, Case.of(name, tiny, device)
    batch, usual, how = case.batch, case.usual, case.how
    taken_theirs = in_turn(repeats, lambda: case.theirs(usual))[0]
    theirs_gb = peak_gb(lambda: case.theirs(batch))
    taken, bare = in_turn(repeats, case.ours, _bare(case))
    ours_gb = peak_gb(case.ours)
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


def tries(record: Record, name: str, tiny: bool, device: str) -> None:
    """What might pay, each over what is done: attention by cuDNN, products of queries, keys and
    values in one, convolutions channels last."""
    repeats, case = 1 if tiny else 2, Case.of(name, tiny, device)
    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION,
             SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]  # fmt: skip

    def by_cudnn() -> None:
        with sdpa_kernel(order, set_priority=True):
            case.ours()

    plain, cudnn = in_turn(repeats, case.ours, by_cudnn)
    case.network.fuse_qkv_projections()
    fused = in_turn(repeats, case.ours)[0]
    case.network.unfuse_qkv_projections()
    case.network.to(memory_format=torch.channels_last)
    last = in_turn(repeats, case.ours)[0]
    record.add(
        *(
            ratio(f"images/s of ours with {what} / as it is, {name}", plain, taken, "", case.how)
            for what, taken in (("attention by cuDNN", cudnn), ("fused projections", fused),
                                ("channels last", last))
        )
    )  # fmt: skip


def by_compiler(record: Record, name: str, tiny: bool, device: str) -> None:
    """Ours and diffusers' own call over the same compiled network, of one batch; and theirs as it
    is at its usual settings."""
    case = Case.of(name, tiny, device)
    batch = case.batch
    as_it_is = in_turn(1, lambda: case.theirs(case.usual))[0]
    case.network.forward = compiled(case.network.forward)
    first = seconds(case.ours)
    taken, theirs = in_turn(1 if tiny else 2, case.ours, lambda: case.theirs(batch))
    how = f"{case.how}; first call {first:.0f} s"
    record.add(
        speed(f"ours, compiled, {name}", batch, taken, told=how),
        speed(f"diffusers' pipeline, compiled, {name}", batch, theirs, told=f"batch {batch}"),
        _over(f"ours / diffusers' pipeline, both compiled, images/s, {name}", batch, taken, batch,
              theirs, ">= 1.0", how),
        _over(f"ours, compiled / diffusers' pipeline as it is, images/s, {name}", batch, taken[:1],
              case.usual, as_it_is, ">= 1.5", how),
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


def _bare(case: Case) -> Callable[[], None]:
    """The calls of the network and of the decoder that a run makes, and nothing else: noted in one
    run, made again with the same tensors."""
    calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []
    network, decoder = case.network, case.pipeline.vae

    def noted(plain: Any) -> Any:
        @wraps(plain)
        def called(*args: Any, **kwargs: Any) -> Any:
            calls.append((plain, args, kwargs))
            return plain(*args, **kwargs)

        return called

    forward, decode = network.forward, decoder.decode
    network.forward, decoder.decode = noted(forward), noted(decode)
    case.ours()
    network.forward, decoder.decode = forward, decode

    def again() -> None:
        with torch.inference_mode(), arithmetic("bfloat16"):
            for plain, args, kwargs in calls:
                plain(*args, **kwargs)

    return again
