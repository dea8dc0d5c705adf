"""ImageReward: a reward model of pictures and prompts, trained on rankings by people."""

from __future__ import annotations

from pathlib import Path

from ddim_core.image_scores.parts import Part, Source
from ddim_core.image_scores.scorer import ScoreKind, Scorer

NAME = "image-reward"
# Of the rewards of its training data, by which the package standardises.
MEAN, STD = 0.16717362830052426, 1.0333394966054072
CONFIG = "med_config.json"


def opened(folder: Path) -> Scorer:
    """Opens ImageReward, (reward - 0.167) / 1.033.

    Source: Xu et al. 2023 (arXiv:2304.05977); as `ImageReward.score` of image-reward 1.5.

    Args:
        folder: `ImageReward.pt` and `med_config.json` as they are published, with the tokenizer of
            bert-base-uncased.

    Raises:
        ValueError: If it holds no such network.
    """
    from ddim_core.common.plain_files import read_json
    from ddim_core.features.model_folder import read_state
    from ddim_core.image_scores.networks.blip import BertTokens, RewardNetwork
    from ddim_core.image_scores.networks.pictures import short_side_cropped

    weights = next(path for path in folder.iterdir() if path.suffix in (".pt", ".safetensors"))
    network = RewardNetwork(read_state(weights, NAME), read_json(folder / CONFIG), NAME)
    return Scorer(
        network, network.size, short_side_cropped,
        lambda pixels, read, mask: (network(pixels, read, mask) - MEAN) / STD,
        BertTokens(folder, network.vocabulary, NAME),
    )  # fmt: skip


IMAGE_REWARD = ScoreKind(
    NAME,
    "which pictures of a prompt people rank higher: 0 is the mean of its training pictures, 1 a "
    "spread of them",
    (
        Part("weights", ((CONFIG, "ImageReward.pt"), (CONFIG, "ImageReward.safetensors"))),
        Part("tokenizer", (("vocab.txt",), ("tokenizer.json",)), "google-bert/bert-base-uncased"),
    ),
    {"v1.0": (Source("THUDM/ImageReward"),)},
    opened,
    f"(reward - {MEAN}) / {STD}",
    "Pillow's bicubic to the short side, centre cut, OpenAI's mean and std",
    "BERT's 35 tokens of the prompt",
)
