"""The U-Net of the official DDIM code and of pytorch_diffusion, as a diffusers UNet2DModel.

The official `Model` (ermongroup/ddim, models/diffusion.py) and pytorch_diffusion's (pesser) have
the same names; a UNet2DModel with symmetric attention, `freq_shift` 1 and no padding before its
strided convolutions computes the same function. Its shape is read off the weights; what they do
not say (image size, noise schedule) is in the YAML file that the official code keeps beside them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ddim_core.checkpoints.formats.format import Format, Network, count
from ddim_core.diffusion.specs import NoiseSpec, ScheduleKind

MARK = "temb.dense.0.weight"
ATTENTION_SIZE = 16  # pixels, where all published models attend
KINDS: dict[str, ScheduleKind] = {
    "linear": "linear", "quad": "quad", "const": "constant", "jsd": "jsd", "sigmoid": "sigmoid",
}  # fmt: skip
NORM_GROUPS, NORM_EPS = 32, 1e-6

RESNET = {
    "norm1": "norm1", "conv1": "conv1", "temb_proj": "time_emb_proj", "norm2": "norm2",
    "conv2": "conv2", "nin_shortcut": "conv_shortcut",
}  # fmt: skip
ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
ENDS = {
    "conv_in": "conv_in", "conv_out": "conv_out", "norm_out": "conv_norm_out",
    "temb.dense.0": "time_embedding.linear_1", "temb.dense.1": "time_embedding.linear_2",
}  # fmt: skip


def is_official(state: Mapping[str, Tensor]) -> bool:
    """Tells the official names."""
    return MARK in state


def official_network(state: Mapping[str, Tensor], told: Any, _hparams: Any = None) -> Network:
    """Translates an official state dict.

    Args:
        state: Weights by the official names.
        told: The settings beside it. Those of the official YAML, with its sections `data`, `model`,
            `diffusion`, are heeded; without them the image size is taken that puts attention at 16
            pixels, as in all published models.

    Raises:
        ValueError: If the weights or the settings are of another network.
    """
    settings = told if told and {"data", "diffusion"} <= set(told) else None
    n_levels = count(state, r"down\.(\d+)\.block\.")
    n_blocks = count(state, r"down\.0\.block\.(\d+)\.")
    if n_levels == 0 or n_blocks == 0:
        raise ValueError("the weights have the official names but no down.0.block.0")
    last = n_blocks - 1
    try:
        widths = [len(state[f"down.{i}.block.{last}.conv2.bias"]) for i in range(n_levels)]
        n_in, n_out = state["conv_in.weight"].shape[1], state["conv_out.weight"].shape[0]
    except KeyError as error:
        raise ValueError(f"the weights lack {error.args[0]}") from error
    attends = [f"down.{i}.attn.0.q.weight" in state for i in range(n_levels)]
    if n_levels > 1 and "down.0.downsample.conv.weight" not in state:
        raise ValueError("resamp_with_conv is off in this network; only its default, on, is read")
    if widths[0] != len(state["conv_in.weight"]):
        raise ValueError(
            f"ch_mult starts with {widths[0] / len(state['conv_in.weight']):g} in this network; a "
            "UNet2DModel needs 1, as all published models have"
        )
    size, assumed = _image_size(attends, settings)
    _require_same_network(settings, widths, n_blocks)
    config = {
        "_class_name": "UNet2DModel", "sample_size": size, "in_channels": n_in,
        "out_channels": n_out, "block_out_channels": widths, "layers_per_block": n_blocks,
        "down_block_types": [_block("Down", a) for a in attends],
        "up_block_types": [_block("Up", a) for a in reversed(attends)],
        "attention_head_dim": None, "norm_num_groups": NORM_GROUPS, "norm_eps": NORM_EPS,
        "flip_sin_to_cos": False, "freq_shift": 1, "downsample_padding": 0,
    }  # fmt: skip
    translated = {
        _name(name, n_levels): _as_linear(name, weight)
        for name, weight in state.items()
        if name != "logvar"  # of type `bayesian`: a trained variance that sampling never uses
    }
    noise, assumed_noise = official_noise(settings)
    looks = f"the official DDIM code's with levels of {widths} channels, num_res_blocks {n_blocks}"
    return Network(
        config, translated, noise, assumed=assumed, assumed_noise=assumed_noise, looks=looks
    )


def official_noise(settings: Mapping[str, Any] | None) -> tuple[NoiseSpec, list[str]]:
    """The noise schedule of the official settings; without them that of all published models.

    Raises:
        ValueError: If its kind is unknown.
    """
    if settings is None or "diffusion" not in settings:
        return NoiseSpec(), [
            "The checkpoint does not say its noise schedule: linear from 0.0001 to 0.02 with "
            "T = 1000 is assumed, as of all published models of its kind."
        ]
    section = settings["diffusion"]
    kind = section.get("beta_schedule")
    if kind not in KINDS:
        raise ValueError(f"beta_schedule is {kind!r}; it must be one of {', '.join(KINDS)}")
    return NoiseSpec(
        KINDS[kind], int(section["num_diffusion_timesteps"]), float(section["beta_start"]),
        float(section["beta_end"]),
    ), []  # fmt: skip


def _image_size(attends: list[bool], settings: Mapping[str, Any] | None) -> tuple[int, list[str]]:
    data = (settings or {}).get("data")
    if data is not None:
        if not data.get("rescaled", True) or data.get("logit_transform"):
            raise ValueError(
                "data.rescaled is off in the checkpoint's settings; only networks of pixels in "
                "[-1, 1] are sampled"
            )
        return int(data["image_size"]), []
    if attends.count(True) != 1:
        raise ValueError(
            "the checkpoint does not say its image size; put the YAML file of its training beside "
            "it, as config.yml"
        )
    size = ATTENTION_SIZE << attends.index(True)
    return size, [
        f"The checkpoint does not say its image size: {size} is assumed, which puts attention at "
        f"{ATTENTION_SIZE} pixels, as in all published models of its kind."
    ]


def _require_same_network(
    settings: Mapping[str, Any] | None, widths: list[int], n_blocks: int
) -> None:
    model = (settings or {}).get("model")
    if model is None:
        return
    told = [int(model["ch"]) * int(m) for m in model["ch_mult"]]
    if told != widths or int(model["num_res_blocks"]) != n_blocks:
        raise ValueError(
            f"the settings beside the checkpoint are of another network: widths {told} with "
            f"{model['num_res_blocks']} blocks, where its weights have {widths} with {n_blocks}"
        )


def _block(direction: str, attends: bool) -> str:
    return f"{'Attn' if attends else ''}{direction}Block2D"


def _name(name: str, n_levels: int) -> str:
    """The name that diffusers gives to an official weight; an unknown one stays as it is."""
    stem, _, kind = name.rpartition(".")
    if stem in ENDS:
        return f"{ENDS[stem]}.{kind}"
    if match := re.fullmatch(r"mid\.(block|attn)_([12])\.(\w+)", stem):
        if match[1] == "attn":
            return f"mid_block.attentions.0.{ATTENTION.get(match[3], match[3])}.{kind}"
        return f"mid_block.resnets.{int(match[2]) - 1}.{RESNET.get(match[3], match[3])}.{kind}"
    if match := re.fullmatch(r"(down|up)\.(\d+)\.(down|up)sample\.conv", stem):
        return f"{_level(match[1], match[2], n_levels)}.{match[3]}samplers.0.conv.{kind}"
    if match := re.fullmatch(r"(down|up)\.(\d+)\.(block|attn)\.(\d+)\.(\w+)", stem):
        level = _level(match[1], match[2], n_levels)
        if match[3] == "attn":
            return f"{level}.attentions.{match[4]}.{ATTENTION.get(match[5], match[5])}.{kind}"
        return f"{level}.resnets.{match[4]}.{RESNET.get(match[5], match[5])}.{kind}"
    return name


def _level(direction: str, index: str, n_levels: int) -> str:
    """The official code counts levels by resolution, diffusers in the order of their use."""
    place = int(index) if direction == "down" else n_levels - 1 - int(index)
    return f"{direction}_blocks.{place}"


def _as_linear(name: str, weight: Tensor) -> Tensor:
    """Attention's 1x1 convolutions are linear layers in diffusers."""
    in_attention = re.search(r"\.attn(_1)?\.", name) and weight.ndim == 4
    return weight[:, :, 0, 0].contiguous() if in_attention else weight


OFFICIAL = Format("the official DDIM code", is_official, official_network, (MARK,))
