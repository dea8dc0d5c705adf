"""A callback of Lightning that saves a diffusers pipeline every few epochs and announces it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from announce import save_and_announce
from lightning.pytorch import Callback, LightningModule, Trainer


class AnnounceCheckpoints(Callback):
    """Saves and announces at the end of every `every`-th epoch, by the first process alone.

        Trainer(callbacks=[AnnounceCheckpoints(Path("runs/faces"), lambda module: module.pipeline)])

    Args:
        folder: Gets a folder `step-N` each time.
        pipeline_of: Returns the module's network as a diffusers pipeline.
        every: Epochs.
    """

    def __init__(
        self, folder: Path, pipeline_of: Callable[[LightningModule], Any], every: int = 1
    ) -> None:
        self.folder, self.pipeline_of, self.every = folder, pipeline_of, every

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and (trainer.current_epoch + 1) % self.every == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            checkpoint = self.folder / f"step-{trainer.global_step}"
            save_and_announce(self.pipeline_of(pl_module), checkpoint)
