"""LoRA steps a second on a card, over the way of diffusers' script."""

from __future__ import annotations

from pathlib import Path

from benchmarks.gpu.record import Figure, Record
from benchmarks.gpu.timing import in_turn, ratio, seconds
from benchmarks.lora import Setting, as_the_script, ours, pictures
from benchmarks.sd15 import build
from benchmarks.servers import PROJECT
from ddim_core.lora.training.loop import start


def measure(record: Record, tiny: bool, device: str, folder: Path) -> None:
    """Stable Diffusion 1.5 at its full shapes, in bfloat16, batch 4 at 512 pixels."""
    base = PROJECT / "data" / "base"
    if not tiny:
        build(folder / "sd15")
        base = folder / "sd15"
    card = "cpu:0" if device == "cpu" else device
    side, batch, steps = (32, 2, 1) if tiny else (512, 4, 20)
    setting = Setting(base, side, batch, steps, 3, card, "no" if tiny else "bf16")
    items = pictures(side)
    state = start(setting.spec, base, setting.execution)
    mine, once = ours(setting, state, items)
    script = Setting(base, side, batch, steps, 3, device, setting.precision)
    theirs = as_the_script(script, items)

    def several(step: object) -> object:
        return lambda: [step() for _ in range(steps)]  # type: ignore[operator]

    taken, their_taken = in_turn(1 if tiny else 3, several(mine), several(theirs))  # type: ignore[arg-type]
    how = f"bf16, rank {setting.spec.rank}, batch {batch}, {side} pixels"
    record.add(
        ratio("LoRA steps/s, ours / diffusers' script, SD 1.5-sized", their_taken, taken,
              ">= 1.3", how),
        Figure("LoRA steps/s, ours", steps / sorted(taken)[len(taken) // 2], "steps/s", told=how),
        Figure("latents and texts before it, an image", once / len(items), "CPU s"),
        Figure("the next step's seconds", seconds(mine), "s"),
    )  # fmt: skip
