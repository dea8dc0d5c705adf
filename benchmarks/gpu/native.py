"""A U-Net of CIFAR's size on a card: ours beside its bare calls, number formats, bits, FID."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu import models
from benchmarks.gpu.record import Figure, Record
from benchmarks.gpu.timing import in_turn, ratio, speed
from ddim_core.devices.arithmetic import arithmetic
from ddim_core.diffusion.specs import Execution, GridCell, OnCard, SamplerSpec, SchedulerSpec
from tasks.checkpoints import memory
from tasks.sampling import native, scheduled
from tasks.storage import store
from tasks.storage.store import ArtifactRef


def stored(tiny: bool, folder: Path) -> ArtifactRef:
    """The checkpoint in the store."""
    models.cifar(tiny).save_pretrained(folder / "cifar")
    return store.put_folder(folder / "cifar")


NOISY = ("ddpm", "euler_a")  # schedulers of diffusers that draw noise at each step


def measure(record: Record, tiny: bool, device: str, ref: ArtifactRef) -> None:
    """Sampling over bare calls, over diffusers' pipeline, and formats over float32."""
    n, repeats, cell = _asked(tiny, device)
    batch, steps = cell.card.batch, cell.sampler.steps  # type: ignore[union-attr]
    per_second = {}
    for dtype in ("float32", "tf32", "bfloat16"):
        this = replace(cell, dtype=dtype)  # type: ignore[arg-type]
        ours, bare = _ours(this, ref, device, n), _bare(this, ref, device, n)
        taken, calls = in_turn(repeats, ours, bare)
        how = f"{dtype}, S = {steps}, eta = 1, batch {batch}, N = {n}"
        per_second[dtype] = sorted(n / t for t in taken)[len(taken) // 2]
        record.add(
            ratio(f"sampling / bare calls, CIFAR-sized, {dtype}", taken, calls, "<= 1.05", how),
            speed(f"ours, CIFAR-sized, {dtype}", n, taken, told=how),
        )
    record.add(
        Figure("bfloat16 / float32, ours, images/s, CIFAR-sized",
               per_second["bfloat16"] / per_second["float32"], "ratio", ">= 3"),
        Figure("tf32 / float32, ours, images/s, CIFAR-sized",
               per_second["tf32"] / per_second["float32"], "ratio"),
    )  # fmt: skip
    for name in NOISY:
        this = replace(cell, sampler=SchedulerSpec(name, steps), dtype="bfloat16")
        taken, calls = in_turn(repeats, _ours(this, ref, device, n), _bare(this, ref, device, n))
        record.add(
            ratio(f"sampling / bare calls, CIFAR-sized, diffusers' {name}", taken, calls, "<= 1.05",
                  f"bfloat16, S = {steps}, batch {batch}, N = {n}")
        )  # fmt: skip
    theirs = in_turn(repeats, _pipeline(tiny, device, steps))[0]
    record.add(
        speed("diffusers' DDIM pipeline, CIFAR-sized, float16", 8, theirs, told="batch 8"),
        Figure("ours / diffusers' DDIM pipeline, images/s, CIFAR-sized",
               per_second["bfloat16"] / (8 / sorted(theirs)[len(theirs) // 2]), "ratio", ">= 1.5",
               told="bfloat16; theirs float16, batch 8"),
    )  # fmt: skip
    memory.forget()


def by_compiler(record: Record, tiny: bool, device: str, ref: ArtifactRef) -> None:
    """The same network compiled."""
    n, repeats, cell = _asked(tiny, device)
    assert cell.card is not None
    this = replace(cell, dtype="bfloat16", card=replace(cell.card, compiled=True))
    taken = in_turn(repeats, _ours(this, ref, device, n))[0]
    record.add(speed("ours, CIFAR-sized, bfloat16, compiled", n, taken))
    memory.forget()


def _asked(tiny: bool, device: str) -> tuple[int, int, GridCell]:
    """How many images, how often, and by which cell."""
    n, batch, steps, repeats = (4, 2, 2, 1) if tiny else (256, 128, 20, 2)
    card = OnCard(torch.device(device).type, batch)
    return n, repeats, GridCell(SamplerSpec(steps, eta=1.0), card=card)


def bits(record: Record, tiny: bool, device: str, ref: ArtifactRef) -> None:
    """Whether an image has the same bits in another run, another shard and beside others."""
    n, batch, steps = (4, 3, 2) if tiny else (200, 64, 10)
    kind = torch.device(device).type
    for dtype in ("float32", "bfloat16"):
        cell = GridCell(SamplerSpec(steps, eta=1.0), dtype=dtype, card=OnCard(kind, batch))  # type: ignore[arg-type]
        whole = _images(cell, ref, device, range(n))
        again = _images(cell, ref, device, range(n))
        memory.forget()
        fresh = _images(cell, ref, device, range(n))
        rest = _images(cell, ref, device, range(n // 2 - 1, n))  # as a shard is extended
        moved = [
            float((np.abs(a.astype(int) - b.astype(int))).max())
            for a, b in ((whole, again), (whole, fresh), (whole[n // 2 - 1 :], rest))
        ]
        record.add(
            Figure(f"levels moved: run again, network opened anew, another start, {dtype}",
                   max(moved), "levels of 255", "0", told=f"{moved}")
        )  # fmt: skip


def _ours(cell: GridCell, ref: ArtifactRef, device: str, n: int) -> Callable[[], object]:
    return lambda: _images(cell, ref, device, range(n))


def _images(cell: GridCell, ref: ArtifactRef, device: str, indices: range) -> NDArray[np.uint8]:
    assert cell.card is not None
    drawn_by = native if isinstance(cell.sampler, SamplerSpec) else scheduled
    execution = Execution(device=device)
    return drawn_by._draw(cell, ref, execution, indices, cell.card.batch, indices.start).images


def _bare(cell: GridCell, ref: ArtifactRef, device: str, n: int) -> Callable[[], object]:
    """As many calls of the same network with one input, by plain torch."""
    assert cell.card is not None
    loaded = memory.checkpoint_in_memory(ref, device, cell.dtype, cell.card)
    unet, batch = loaded.model.unet, cell.card.batch
    x = torch.randn(batch, *loaded.noise_shape, device=device, dtype=next(unet.parameters()).dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    t = torch.full((batch,), 500, device=device)

    def calls() -> None:
        with torch.inference_mode(), arithmetic(cell.dtype):
            for _ in range(-(-n // batch) * cell.sampler.steps):
                unet(x, t, return_dict=False)

    return calls


def _pipeline(tiny: bool, device: str, steps: int) -> Callable[[], object]:
    from diffusers import DDIMPipeline, DDIMScheduler

    half = torch.float16 if device != "cpu" else torch.float32  # it makes NumPy of its images
    pipeline = DDIMPipeline(models.cifar(tiny).unet, DDIMScheduler()).to(device, half)
    pipeline.set_progress_bar_config(disable=True)
    return lambda: pipeline(
        batch_size=8, num_inference_steps=steps, eta=1.0, output_type="np",
        generator=torch.Generator(device).manual_seed(0),
    )  # fmt: skip
