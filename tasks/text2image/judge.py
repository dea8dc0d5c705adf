"""A spec in, a trained judge of emoji scenes out."""

from __future__ import annotations

from typing import Any

import torch

from ddim_core.diffusion.specs import Execution
from ddim_core.text2image.judge import train_judge
from ddim_core.text2image.specs import JudgeSpec
from tasks.storage import store
from tasks.storage.caching import cached_task


@cached_task
def train_emoji_judge(spec: JudgeSpec, execution: Execution) -> dict[str, Any]:
    """Trains the judge on real drawings; returns a reference to it with its accuracy on others."""
    torch.set_num_threads(execution.threads)
    judge = train_judge(spec)
    ref = store.put(judge.to_bytes(), "emoji-judge")
    return {**ref, "accuracy": judge.about.accuracy, "n_test": judge.about.n_test}
