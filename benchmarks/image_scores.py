"""What a score of images costs: networks of their published sizes with constant weights.

    python -m benchmarks.image_scores [NAME ...]      (a core-minute for all, 5 GB)

Processor time of one thread an image of 512 x 512 pixels, its cut included, in batches of two.
"""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from ddim_core.image_scores import scorer
from ddim_core.image_scores.networks.blip import LENGTH, RewardNetwork
from ddim_core.image_scores.networks.clip import Clip
from ddim_core.image_scores.networks.pictures import long_side_padded, short_side_cropped

N, SIDE, VALUE = 4, 512, 1e-3
# Width, layers, heads, patch of the pictures' transformer; width, layers, heads of the texts'.
SIZES = {
    "ViT-B/32": (768, 12, 12, 32, 512, 12, 8),
    "ViT-L/14": (1024, 24, 16, 14, 768, 12, 12),
    "ViT-H/14": (1280, 32, 16, 14, 1024, 24, 16),
}
CLIPS = {"clip-score": "ViT-B/32", "aesthetic": "ViT-L/14", "pick-score": "ViT-H/14",
         "hpsv2": "ViT-H/14"}  # fmt: skip


def filled(kind: Any, *config: Any, **more: Any) -> Any:
    """A network whose weights are one number, without drawing any."""
    with torch.device("meta"):
        network = kind(*config, **more)
    network = network.to_empty(device="cpu")
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data.fill_(VALUE) if tensor.is_floating_point() else tensor.data.zero_()
    for module in network.modules():
        if isinstance(ids := getattr(module, "position_ids", None), Tensor):
            ids.data.copy_(torch.arange(ids.shape[-1]).expand_as(ids))
    return network


def clip(size: str) -> Clip:
    width, layers, heads, patch, text, text_layers, text_heads = SIZES[size]
    config = transformers.CLIPConfig(
        vision_config={"hidden_size": width, "num_hidden_layers": layers, "patch_size": patch,
                       "num_attention_heads": heads, "intermediate_size": 4 * width,
                       "image_size": 224},
        text_config={"hidden_size": text, "num_hidden_layers": text_layers,
                     "num_attention_heads": text_heads, "intermediate_size": 4 * text},
    )  # fmt: skip
    return Clip(filled(transformers.CLIPModel, config))


def reward() -> RewardNetwork:
    """ImageReward's: ViT-L/16 and a BERT-base that looks at it."""
    network = RewardNetwork.__new__(RewardNetwork)
    nn.Module.__init__(network)
    network.size, network.vocabulary = 224, 30524
    network.vision = filled(
        transformers.BlipVisionModel,
        transformers.BlipVisionConfig(
            hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096,
            patch_size=16, image_size=224,
        ),
    )  # fmt: skip
    network.text = filled(
        transformers.BlipTextModel,
        transformers.BlipTextConfig(
            encoder_hidden_size=1024, is_decoder=True, num_attention_heads=12, hidden_size=768,
            intermediate_size=3072,
        ),
        add_pooling_layer=False,
    )  # fmt: skip
    network.mlp = nn.Sequential(nn.Linear(768, 1))
    return network


def opened(name: str) -> scorer.Scorer:
    if name == "image-reward":
        network = reward()
        ids = torch.ones(1, LENGTH, dtype=torch.int64)
        return scorer.Scorer(network, 224, short_side_cropped, network,
                             lambda texts: (ids.expand(len(texts), -1),) * 2)  # fmt: skip
    of, cut = clip(CLIPS[name]), long_side_padded if name == "hpsv2" else short_side_cropped
    if name == "aesthetic":
        return scorer.Scorer(of, 224, cut, lambda pixels: of.pictures(pixels)[:, 0])
    ids = torch.full((1, of.length), 2)
    return scorer.Scorer(of, 224, cut, of.cosines, lambda texts: (ids.expand(len(texts), -1),))


def main() -> None:
    torch.set_num_threads(1)
    scorer.BATCH = 2
    images = np.random.default_rng(0).integers(0, 256, (N, SIDE, SIDE, 3), dtype=np.uint8)
    for name in sys.argv[1:] or [*CLIPS, "image-reward"]:
        score = opened(name)
        prompts = ["a red cat"] * N
        score(images[:1], prompts[:1])
        began = time.process_time()
        score(images, prompts)
        seconds = (time.process_time() - began) / N
        gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{name}: {seconds:.2f} CPU seconds an image; {gigabytes:.1f} GB at most so far")


if __name__ == "__main__":
    main()
