"""PickScore: which picture of a prompt people pick, of two."""

from __future__ import annotations

from pathlib import Path

from ddim_core.image_scores.parts import CLIP_TOKENIZER, CLIP_WEIGHTS, Source
from ddim_core.image_scores.scorer import ScoreKind, Scorer

NAME = "pick-score"


def opened(folder: Path) -> Scorer:
    """Opens PickScore, exp(logit_scale) cos(picture, prompt) of a CLIP ViT-H/14 trained on picks.

    The softmax of two pictures' numbers is the probability that the first is picked.

    Source: Kirstain et al. 2023 (arXiv:2305.01569), section 3; as the snippet of its model card.

    Args:
        folder: The CLIP with its tokenizer.

    Raises:
        ValueError: If it holds no such network.
    """
    from ddim_core.image_scores.networks.clip import ClipTokens, open_clip
    from ddim_core.image_scores.networks.pictures import short_side_cropped

    clip = open_clip(folder, NAME)
    return Scorer(
        clip, clip.size, short_side_cropped,
        lambda pixels, read: clip.scale * clip.cosines(pixels, read),
        ClipTokens(folder, clip, NAME),
    )  # fmt: skip


PICK_SCORE = ScoreKind(
    NAME,
    "which picture of a prompt people pick: 1 more is picked 73 % of the time",
    (CLIP_WEIGHTS, CLIP_TOKENIZER),
    {"v1": (Source("yuvalkirstain/PickScore_v1"),)},
    opened,
    "exp(logit_scale) cos",
    "Pillow's bicubic to the short side, centre cut, OpenAI's mean and std",
    "CLIP's tokens of the prompt, cut to its length",
)
