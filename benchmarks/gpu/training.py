"""The training of a small U-Net on a card: speed, and what a killed training goes on with."""

from __future__ import annotations

from pathlib import Path

from benchmarks.gpu.features import smooth_images
from benchmarks.gpu.record import Figure, Record
from benchmarks.gpu.timing import seconds
from ddim_core.devices.arithmetic import arithmetic
from ddim_core.networks.specs import ToyModelSpec, TrainSpec
from ddim_core.networks.training import TrainState, load_state, save_state, start, train


def measure(record: Record, tiny: bool, device: str, folder: Path) -> None:
    """Steps a second at 32 pixels, and the weights of a resumed training beside one at once."""
    steps = 4 if tiny else 200
    widths = (16, 16) if tiny else (64, 128, 128)
    spec = TrainSpec(
        model=ToyModelSpec(resolution=32, channels=3, widths=widths), steps=steps, batch_size=64
    )
    images = smooth_images(256)
    card = "cpu:0" if device == "cpu" else device
    with arithmetic("float32"):
        whole = start(spec, card)
        taken = seconds(lambda: _until(spec, images, whole, steps))
        half = start(spec, card)
        _until(spec, images, half, steps // 2)
        save_state(spec, half, folder / "half.pt")
        resumed = load_state(spec, folder / "half.pt", card)
        _until(spec, images, resumed, steps)
    moved = max(
        float((a - b).abs().max())
        for a, b in zip(whole.ema.parameters(), resumed.ema.parameters(), strict=True)
    )
    record.add(
        Figure("steps/s of a small U-Net's training, 32 pixels, batch 64", steps / taken, "steps/s",
               told=f"{steps} steps, the capture of its graph included"),
        Figure("weights moved by killing and resuming it", moved, "absolute", "0"),
    )  # fmt: skip


def _until(spec: TrainSpec, images: object, state: TrainState, step: int) -> None:
    for done in train(spec, images, state):  # type: ignore[arg-type]
        if done.step == step:
            return
