"""CLIPScore: how well a picture fits its prompt."""

from __future__ import annotations

from pathlib import Path

from ddim_core.image_scores.parts import CLIP_TOKENIZER, CLIP_WEIGHTS, Source
from ddim_core.image_scores.scorer import ScoreKind, Scorer

NAME = "clip-score"
W = 2.5
PREFIX = "A photo depicts "


def opened(folder: Path, prefix: str = PREFIX) -> Scorer:
    """Opens CLIPScore, w max(cos(picture, text), 0) with w = 2.5.

    torchmetrics has 100 max(cos, 0) of the bare prompt: 40 times this with an empty prefix.

    Source: Hessel et al. 2021 (arXiv:2104.08718), eq. 1; prefix, resize and cut as its authors'
    clipscore.py.

    Args:
        folder: A CLIP with its tokenizer; the paper's is ViT-B/32.
        prefix: What stands before each prompt.

    Raises:
        ValueError: If it holds no such network.
    """
    from ddim_core.image_scores.networks.clip import ClipTokens, open_clip
    from ddim_core.image_scores.networks.pictures import short_side_cropped

    clip = open_clip(folder, NAME)
    tokens = ClipTokens(folder, clip, NAME)
    return Scorer(
        clip, clip.size, short_side_cropped,
        lambda pixels, read: W * clip.cosines(pixels, read).clamp(min=0.0),
        lambda prompts: tokens([prefix + prompt for prompt in prompts]),
    )  # fmt: skip


CLIP_SCORE = ScoreKind(
    NAME,
    "how well a picture fits its prompt: 2.5 times the cosine of CLIP's vectors",
    (CLIP_WEIGHTS, CLIP_TOKENIZER),
    {"ViT-B/32": (Source("openai/clip-vit-base-patch32"),)},
    opened,
    "2.5 max(cos, 0)",
    "Pillow's bicubic to the short side, centre cut, OpenAI's mean and std",
    f"CLIP's tokens of {PREFIX!r} + prompt, cut to its length",
)
