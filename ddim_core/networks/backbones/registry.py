"""The networks that diffusers has not, by the class name in their config.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from ddim_core.common.foreign import Config
from ddim_core.networks.backbones import (
    lucidrains,
    ncsnpp,
    preconditioned,
    transformer,
    wide_time,
)
from ddim_core.networks.checks import require_few_places, require_same_weights, require_sane
from ddim_core.safe_files.safe_load import first_line

# Each lays its network out for a config. It is called as diffusers' UNet2DModel is, and has the
# config (`sample_size`, `in_channels`, `out_channels`, `num_class_embeds`) as its `config`.
BACKBONES: dict[str, Callable[[Config], torch.nn.Module]] = {
    lucidrains.CLASS_NAME: lucidrains.DenoisingDiffusionUnet,
    ncsnpp.CLASS_NAME: ncsnpp.NCSNpp,
    transformer.CLASS_NAME: transformer.DiffusionTransformer,
    wide_time.CLASS_NAME: wide_time.wide_time_unet,
    preconditioned.CLASS_NAME: preconditioned.EDMUNet,
}


def is_backbone(config: Mapping[str, Any]) -> bool:
    """Tells the configuration of one of these."""
    return config.get("_class_name") in BACKBONES


def backbone(config: Config, state: dict[str, torch.Tensor], where: str) -> torch.nn.Module:
    """Builds the network of a configuration with its weights.

    Args:
        config: With its class as `_class_name`.
        state: Weights by the network's own names; it keeps them, and no copies.
        where: What they are called in messages.

    Raises:
        ValueError: If a number is absurd, or the weights are not the network's.
    """
    require_sane(config, where)
    require_few_places(config, where)
    try:
        with torch.device("meta"):
            network = BACKBONES[config["_class_name"]](config)
    except Exception as error:  # a configuration can be wrong in every way
        raise ValueError(
            f"the weights in {where} are of no known network: {first_line(error)}"
        ) from error
    require_same_weights(network.state_dict(), state, where)
    network.load_state_dict(state, strict=True, assign=True)
    return network


def load_backbone(config: Config, weights: Path) -> torch.nn.Module:
    """Opens a stored one: of a config and a safetensors file; see `backbone`."""
    return backbone(config, safetensors.torch.load_file(weights), weights.parent.name)
