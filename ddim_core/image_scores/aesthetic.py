"""LAION's aesthetic score: how much people like a picture, whatever it shows."""

from __future__ import annotations

from pathlib import Path

from ddim_core.image_scores.parts import CLIP_WEIGHTS, Part, Source
from ddim_core.image_scores.scorer import ScoreKind, Scorer

NAME = "aesthetic"
HEAD = (
    "https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/"
    "sac%2Blogos%2Bava1-l14-linearMSE.pth"
)
HEAD_SHA256 = "21dd590f3ccdc646f0d53120778b296013b096a035a2718c9cb0d511bff0f1e0"


def opened(folder: Path) -> Scorer:
    """Opens the aesthetic score: five linear layers on the unit vector of CLIP ViT-L/14, about 1
    (ugly) to 10.

    Source: improved-aesthetic-predictor, `simple_inference.py` (C. Schuhmann, 2022).

    Args:
        folder: A CLIP in either layout, and `*.pth` with the layers.

    Raises:
        ValueError: If it holds no such network.
    """
    from torch import nn

    from ddim_core.features.model_folder import read_state
    from ddim_core.image_scores.networks.clip import open_clip
    from ddim_core.image_scores.networks.linear import linear_layers
    from ddim_core.image_scores.networks.pictures import short_side_cropped

    clip = open_clip(folder, NAME)
    state = read_state(next(folder.glob("*.pth")), NAME)
    head = linear_layers(state, NAME, int(clip.network.config.projection_dim))
    return Scorer(
        nn.ModuleList([clip, head]), clip.size, short_side_cropped,
        lambda pixels: head(clip.pictures(pixels)).squeeze(-1),
    )  # fmt: skip


AESTHETIC = ScoreKind(
    NAME,
    "how much people like a picture, whatever it shows, about 1 to 10",
    (CLIP_WEIGHTS, Part("layers", (("*.pth",),))),
    {
        "v2": (
            Source("openai/clip-vit-large-patch14"),
            Source(HEAD, sha256=HEAD_SHA256),
        )
    },
    opened,
    "five linear layers on CLIP's unit vector",
    "Pillow's bicubic to the short side, centre cut, OpenAI's mean and std",
)
