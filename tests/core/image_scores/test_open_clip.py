"""What the shapes of published CLIPs tell of them, where no configuration does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ddim_core.image_scores.networks import open_clip

# Of open_clip's own model configurations: width, layers, heads, patch; width, layers, heads; d.
PUBLISHED = {
    "ViT-B-32": (768, 12, 12, 32, 512, 12, 8, 512),
    "ViT-L-14": (1024, 24, 16, 14, 768, 12, 12, 768),
    "ViT-H-14": (1280, 32, 16, 14, 1024, 24, 16, 1024),
    "ViT-g-14": (1408, 40, 16, 14, 1024, 24, 16, 1024),
    "ViT-bigG-14": (1664, 48, 16, 14, 1280, 32, 20, 1280),
}
HIDDEN = {"ViT-g-14": 6144, "ViT-bigG-14": 8192}  # elsewhere four times the width


def state_of(name: str) -> dict[str, Tensor]:
    """The tensors that tell sizes, without memory."""
    width, layers, _, patch, text, text_layers, _, d = PUBLISHED[name]
    shapes = {
        "visual.conv1.weight": (width, 3, patch, patch), "text_projection": (text, d),
        "visual.positional_embedding": ((224 // patch) ** 2 + 1, width),
        "positional_embedding": (77, text), "token_embedding.weight": (49408, text),
    }  # fmt: skip
    for tower, n, hidden in (
        ("visual.", layers, HIDDEN.get(name, 4 * width)), ("", text_layers, 4 * text)
    ):  # fmt: skip
        for i in range(n):
            shapes[f"{tower}transformer.resblocks.{i}.mlp.c_fc.weight"] = (hidden, 1)
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_of_published_towers_are_told_by_their_shapes(name: str) -> None:
    width, layers, heads, patch, text, text_layers, text_heads, d = PUBLISHED[name]
    config = open_clip.config_from(state_of(name), None, name)
    vision, read = config.vision_config, config.text_config
    assert (vision.hidden_size, vision.num_hidden_layers, vision.num_attention_heads) == (
        width, layers, heads,
    )  # fmt: skip
    assert (vision.patch_size, vision.image_size, vision.hidden_act) == (patch, 224, "gelu")
    assert vision.intermediate_size == HIDDEN.get(name, 4 * width)
    assert (read.hidden_size, read.num_hidden_layers, read.num_attention_heads) == (
        text, text_layers, text_heads,
    )  # fmt: skip
    assert (read.max_position_embeddings, read.vocab_size, config.projection_dim) == (77, 49408, d)


def test_a_configuration_says_what_shapes_do_not() -> None:
    told = {"model_cfg": {"quick_gelu": True, "vision_cfg": {"head_width": 128},
                          "text_cfg": {"heads": 4}}}  # fmt: skip
    config = open_clip.config_from(state_of("ViT-B-32"), told, "it")
    assert (config.vision_config.num_attention_heads, config.vision_config.hidden_act) == (
        6, "quick_gelu",
    )  # fmt: skip
    assert config.text_config.num_attention_heads == 4
    with pytest.raises(ValueError, match="it has a tower 'vit_so400m'; it must be CLIP's own"):
        open_clip.config_from({}, {"vision_cfg": {"timm_model_name": "vit_so400m"}}, "it")
