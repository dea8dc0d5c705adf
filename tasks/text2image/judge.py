"""A spec in, a trained judge of emoji scenes out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch

from ddim_core.diffusion.specs import Execution
from ddim_core.text2image.embedded import JUDGE, embedded_judge
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
def train_emoji_judge(spec: JudgeSpec, execution: Execution) -> TrainedJudge:
    """Trains the judge on real drawings, or takes the one that comes with the base."""
    torch.set_num_threads(execution.threads)
    judge = _shipped(spec) or train_judge(spec)
    ref = store.put(judge.to_bytes(), "emoji-judge")
    return TrainedJudge(**vars(ref), about=judge.about)


def _shipped(spec: JudgeSpec) -> EmojiJudge | None:
    place = embedded_judge()
    if place is None:
        return None
    content = place.read_bytes()
    if hashlib.sha256(content).hexdigest() != JUDGE:
        raise ValueError(
            f"{place} is damaged, or not the judge that came with the project; fetch it again, or "
            "delete it, and a judge is trained"
        )
    judge = EmojiJudge.from_bytes(content)
    return judge if judge.about.spec == spec else None
