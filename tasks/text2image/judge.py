"""A spec in, a trained judge of emoji scenes out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch

from ddim_core.diffusion.specs import Execution
from ddim_core.text2image.embedded import embedded_judge
from ddim_core.text2image.judge import EmojiJudge, Training, train_judge
from ddim_core.text2image.specs import JudgeSpec
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef


@dataclass(frozen=True)
class TrainedJudge(ArtifactRef):
    """A judge, with how it was trained and how well it judges."""

    about: Training


@cached_task
def train_emoji_judge(spec: JudgeSpec, shipped: str, execution: Execution) -> TrainedJudge:
    """Trains the judge on real drawings, or takes the one that comes with the base.

    Args:
        spec: How it is trained.
        shipped: The SHA-256 of that one, as of `judge_digest`; empty if there is none.
        execution: How the work is done.

    Raises:
        ValueError: If another one lies on this machine.
    """
    torch.set_num_threads(execution.threads)
    judge = _shipped(spec, shipped) or train_judge(spec)
    ref = store.put(judge.to_bytes(), "emoji-judge")
    return TrainedJudge(**vars(ref), about=judge.about)


def _shipped(spec: JudgeSpec, digest: str) -> EmojiJudge | None:
    place = embedded_judge() if digest else None
    if place is None:
        return None
    content = place.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError(
            f"{place} is another judge than the run began with; have the same version of "
            "ddim-flows on all hosts"
        )
    judge = EmojiJudge.from_bytes(content)
    return judge if judge.about.spec == spec else None
