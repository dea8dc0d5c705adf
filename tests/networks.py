"""Networks of the right shapes with random weights, in other people's file formats."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import torch
from torch import nn


def randomise(network: nn.Module) -> nn.Module:
    """Draws weights so that signals neither die nor grow, the same every time."""
    stream = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            if weight.ndim >= 2:
                scale = (2 / weight[0].numel()) ** 0.5
                weight.copy_(scale * torch.randn(weight.shape, generator=stream))
    return network


def save_fid_inception(path: Path) -> Path:
    """A weights file as torch-fidelity and pytorch-fid have it."""
    from torch_fidelity import feature_extractor_inceptionv3 as inception

    network_type = inception.FeatureExtractorInceptionV3
    with (
        mock.patch.object(inception, "load_state_dict_from_url"),
        mock.patch.object(network_type, "load_state_dict"),
    ):
        network = randomise(network_type("random", ["2048"]))
    torch.save(network.state_dict(), path)
    return path


def pytorch_fid_network(path: Path) -> nn.Module:
    """pytorch-fid's own network with the weights of a file."""
    from pytorch_fid import inception

    weights = torch.load(path, weights_only=True)
    with mock.patch.object(inception, "load_state_dict_from_url", return_value=weights):
        return inception.InceptionV3([inception.InceptionV3.DEFAULT_BLOCK_INDEX]).eval()


def save_clip(folder: Path) -> Path:
    """A whole CLIP, text and all, as the hub has it; but tiny."""
    from transformers import CLIPConfig, CLIPModel

    small = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2,
             "num_attention_heads": 4}  # fmt: skip
    config = CLIPConfig(
        text_config={**small, "vocab_size": 99},
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=24,
    )
    randomise(CLIPModel(config)).save_pretrained(folder)
    return folder


def save_dinov2(folder: Path) -> Path:
    """A tiny DINOv2."""
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=56, patch_size=14
    )
    randomise(Dinov2Model(config)).save_pretrained(folder)
    return folder


def save_dinov2_of_its_authors(state: dict[str, torch.Tensor], folder: Path) -> Path:
    """A state dict of the authors' one-block DINOv2, as a transformers folder."""
    from transformers import (
        Dinov2Config,
        Dinov2Model,
        Dinov2WithRegistersConfig,
        Dinov2WithRegistersModel,
    )

    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 518, "patch_size": 14}  # fmt: skip
    model: nn.Module = Dinov2Model(Dinov2Config(**size))
    if "register_tokens" in state:
        model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**size, num_register_tokens=4))
    block = "encoder.layer.0"
    renamed = {
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "attn.proj": "attention.o_proj",
        "ls1.gamma": "layer_scale1.lambda1",
        "ls2.gamma": "layer_scale2.lambda1",
    }
    made = {}
    for key, value in state.items():
        name = key.replace("blocks.0", block)
        for theirs, ours in renamed.items():
            name = name.replace(theirs, ours)
        if name.startswith("norm."):
            name = f"layer{name}"
        if name.endswith(("_token", "_tokens")):
            name = f"embeddings.{name}"
        if ".attn.qkv." in name:
            parts = zip("qkv", value.chunk(3), strict=True)
            made |= {name.replace("attn.qkv", f"attention.{p}_proj"): v for p, v in parts}
        else:
            made[name] = value
    model.load_state_dict(made)
    model.save_pretrained(folder)
    return folder
