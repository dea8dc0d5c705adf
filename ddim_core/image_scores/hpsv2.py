"""HPSv2: which pictures people prefer, by their prompt."""

from __future__ import annotations

from pathlib import Path

from ddim_core.image_scores.parts import CLIP_TOKENIZER, CLIP_WEIGHTS, Part, Source
from ddim_core.image_scores.scorer import ScoreKind, Scorer

NAME = "hpsv2"
ITS_OWN = (("HPS_v2.1_compressed.pt",), ("HPS_v2_compressed.pt",), ("*.pt",))


def opened(folder: Path) -> Scorer:
    """Opens HPS v2.0 or v2.1, cos(picture, prompt) of a CLIP ViT-H/14 trained on preferences.

    Papers often print 100 times it. The package hpsv2 computes in float16 on a GPU.

    Source: Wu et al. 2023 (arXiv:2306.09341), eq. 1; as `img_score.score` of hpsv2 1.2.0, which
    pads the short side with black and leaves the cosine without its scale.

    Args:
        folder: `HPS_v2*_compressed.pt` as it is published (open_clip's layout), or a CLIP's folder
            in either layout; with its tokenizer.

    Raises:
        ValueError: If it holds no such network.
    """
    from ddim_core.features.model_folder import read_state
    from ddim_core.image_scores.networks.clip import Clip, ClipTokens, open_clip
    from ddim_core.image_scores.networks.open_clip import clip_of
    from ddim_core.image_scores.networks.pictures import long_side_padded

    own = next(folder.glob("*.pt"), None)
    clip = Clip(clip_of(read_state(own, NAME), None, NAME)) if own else open_clip(folder, NAME)
    tokens = ClipTokens(folder, clip, NAME)
    return Scorer(clip, clip.size, long_side_padded, clip.cosines, tokens)


HPSV2 = ScoreKind(
    NAME,
    "which pictures people prefer: the cosine of a CLIP trained on their choices",
    (Part("weights", (*ITS_OWN, *CLIP_WEIGHTS.forms)), CLIP_TOKENIZER),
    {
        "v2.1": (Source("xswu/HPSv2", ("HPS_v2.1_compressed.pt",)),),
        "v2.0": (Source("xswu/HPSv2", ("HPS_v2_compressed.pt",)),),
    },
    opened,
    "cos",
    "torch's antialiased bicubic to the long side, padded with black, OpenAI's mean and std",
    "CLIP's tokens of the prompt, cut to its length",
)
