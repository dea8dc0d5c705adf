"""The U-Net of guided-diffusion (ADM) and of improved-diffusion, as a diffusers UNet2DModel.

`UNetModel` of openai/guided-diffusion (Dhariwal and Nichol 2021, arXiv:2105.05233) and the older
one of openai/improved-diffusion (Nichol and Dhariwal 2021, arXiv:2102.09672), whose names are the
same. A UNet2DModel with `resnet_time_scale_shift="scale_shift"` computes the same function; one
number of heads for all levels and stretched times are those of `wide_time`. A network that learns
its variance answers with twice its channels, the noise first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ddim_core.checkpoints.formats.adm_flags import Flags, Shape, flags_of
from ddim_core.checkpoints.formats.format import Format, Network, count, require_size, told_by
from ddim_core.common.foreign import Config
from ddim_core.networks.backbones.wide_time import CLASS_NAME

MARK = "time_embed.0.weight"
UPSAMPLED = 6  # channels: of an image and a smaller one
RESNET = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2", "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}  # fmt: skip
ENDS = {
    "input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out",
    "time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
    "label_emb": "class_embedding",
}  # fmt: skip


def is_adm(state: Mapping[str, Tensor]) -> bool:
    """Tells the names of guided-diffusion's U-Net, and of half of it, its classifier."""
    return MARK in state and "input_blocks.0.0.weight" in state


def adm_network(state: Mapping[str, Tensor], settings: Any, hparams: Any = None) -> Network:
    """Translates a state dict of guided-diffusion or improved-diffusion.

    Args:
        state: Weights by their names.
        settings: Those beside it; its flags are heeded, see `flags_of`.
        hparams: Those in its file, such as Lightning's.

    Raises:
        ValueError: If it is a classifier or an upsampler, or the settings are of another network.
    """
    _require_plain(state)
    shape, widths = _shape(state)
    flags, assumed, assumed_noise = flags_of(shape, told_by(hparams, settings))
    config = _config(state, shape, widths, flags)
    heads = _heads(flags, widths)
    translated: dict[str, Tensor] = {}
    for name, weight in state.items():
        stem, _, kind = name.rpartition(".")
        place = _place(stem, shape, len(widths))
        if place is None:
            translated[name] = weight
        elif stem.endswith(".qkv"):
            q, k, v = _split(weight, heads(len(weight) // 3), flags.use_new_attention_order)
            for part, rows in (("to_q", q), ("to_k", k), ("to_v", v)):
                translated[f"{place}.{part}.{kind}"] = rows.contiguous()
        else:
            in_attention = stem.endswith("proj_out")
            translated[f"{place}.{kind}"] = weight.flatten(1) if (
                in_attention and weight.ndim > 1
            ) else weight  # fmt: skip
    return Network(
        config, translated, flags.noise, _scheduler(shape, flags), assumed=assumed,
        assumed_noise=assumed_noise, looks=shape.told,
    )  # fmt: skip


def _require_plain(state: Mapping[str, Tensor]) -> None:
    """Refuses what has the names and is another network."""
    if not any(name.startswith("output_blocks.") for name in state):
        raise ValueError(
            "the weights are of guided-diffusion's classifier, which tells classes and draws "
            "nothing; give its diffusion model (classifier guidance is not sampled here)"
        )
    if any(".transformer_blocks." in name for name in state):
        raise ValueError(
            "the weights are a U-Net of latent diffusion, told of texts; convert it once with "
            "diffusers' StableDiffusionPipeline.from_single_file(file).save_pretrained(folder)"
        )
    n_in, n_out = state["input_blocks.0.0.weight"].shape[1], len(state.get("out.2.bias", ()))
    if n_out not in (n_in, 2 * n_in) or n_in == UPSAMPLED:
        raise ValueError(
            f"the network takes {n_in} channels and gives {n_out}, as guided-diffusion's "
            "upsamplers do, which are told of a smaller image; only networks that draw from noise "
            "alone are sampled"
        )


def _shape(state: Mapping[str, Tensor]) -> tuple[Shape, list[int]]:
    """Reads a network off its weights: an output block with a third layer ends a level."""
    n_all = count(state, r"output_blocks\.(\d+)\.")
    ups = {
        int(match[1])
        for name in state
        if (match := re.match(r"output_blocks\.(\d+)\.[12]\.(?:conv|in_layers\.0)\.weight", name))
    }
    n_levels = len(ups) + 1
    a_level, rest = divmod(n_all, n_levels)
    ends = {a_level * level - 1 for level in range(1, n_levels)}
    if rest or a_level < 2 or ups != ends or count(state, r"input_blocks\.(\d+)\.") != n_all:
        raise ValueError(
            "the weights have guided-diffusion's names, and their blocks are not those of its "
            "U-Net (conv_resample must be on, its default)"
        )
    firsts = [f"input_blocks.{1 + level * a_level}" for level in range(n_levels)]
    try:
        widths = [len(state[f"{first}.0.out_layers.3.bias"]) for first in firsts]
        base = state[MARK].shape[1]
        embedded = len(state[f"{firsts[0]}.0.emb_layers.1.bias"])
        n_in, n_out = state["input_blocks.0.0.weight"].shape[1], len(state["out.2.bias"])
    except KeyError as error:
        raise ValueError(f"the weights lack {error.args[0]}") from error
    if widths[0] != len(state["input_blocks.0.0.weight"]):
        raise ValueError(
            f"channel_mult starts with {widths[0] / base:g} in this network of improved-diffusion; "
            "a UNet2DModel needs 1, as all published models have"
        )
    return Shape(
        num_channels=base,
        channel_mult=tuple(width / base for width in widths),
        num_res_blocks=a_level - 1,
        levels_with_attention=tuple(
            level for level, first in enumerate(firsts) if f"{first}.1.qkv.weight" in state
        ),
        n_classes=len(state.get("label_emb.weight", ())),
        resblock_updown=f"input_blocks.{a_level}.0.in_layers.0.weight" in state,
        use_scale_shift_norm=embedded == 2 * widths[0],
        learn_sigma=n_out == 2 * n_in,
    ), widths


def _config(state: Mapping[str, Tensor], shape: Shape, widths: list[int], flags: Flags) -> Config:
    n_levels, size = len(widths), flags.image_size
    require_size(size, n_levels)
    attends = [level in shape.levels_with_attention for level in range(n_levels)]
    resample = "resnet" if shape.resblock_updown else "conv"
    plain = "Resnet{}sampleBlock2D" if shape.resblock_updown else "{}Block2D"
    down, up = (
        [f"Attn{way}Block2D" if a else plain.format(way) for a in attends] for way in ("Down", "Up")
    )
    config: Config = {
        "_class_name": "UNet2DModel", "sample_size": size,
        "in_channels": state["input_blocks.0.0.weight"].shape[1],
        "out_channels": len(state["out.2.bias"]), "block_out_channels": widths,
        "layers_per_block": shape.num_res_blocks, "down_block_types": down,
        "up_block_types": up[::-1], "downsample_type": resample, "upsample_type": resample,
        "attention_head_dim": None, "norm_num_groups": 32, "attn_norm_num_groups": 32,
        "norm_eps": 1e-5, "num_class_embeds": shape.n_classes or None,
        "resnet_time_scale_shift": "scale_shift" if shape.use_scale_shift_norm else "default",
        "time_embedding_dim": len(state[MARK]),
    }  # fmt: skip
    scale = 1000.0 / flags.diffusion_steps if flags.rescale_timesteps else 1.0
    heads, wide = _heads(flags, widths), {"time_features": shape.num_channels}
    attending = {widths[i] for i in shape.levels_with_attention} | {widths[-1]}
    each = {width // heads(width) for width in attending}
    if len(each) == 1:
        config["attention_head_dim"] = each.pop()
    else:
        wide["num_heads"] = flags.num_heads
    if "num_heads" in wide or scale != 1.0 or shape.num_channels != widths[0]:
        config |= {**wide, "time_scale": scale, "_class_name": CLASS_NAME}
    return config


def _heads(flags: Flags, widths: list[int]) -> Any:
    """How many heads an attention of a width has."""
    if flags.num_heads_upsample not in (-1, flags.num_heads) and flags.num_head_channels < 1:
        raise ValueError(
            f"num_heads_upsample is {flags.num_heads_upsample} and num_heads {flags.num_heads}; "
            "they must be equal, as in all published models"
        )

    def heads(width: int) -> int:
        name = "num_heads" if flags.num_head_channels < 1 else "num_head_channels"
        value = max(getattr(flags, name), 1)
        if width % value:
            raise ValueError(
                f"{name} is {value}, by which {width} channels of the network, of widths "
                f"{widths}, cannot be divided"
            )
        return value if name == "num_heads" else width // value

    return heads


def _split(weight: Tensor, heads: int, by_kind: bool) -> tuple[Tensor, ...]:
    """Queries, keys and values of one layer: in the legacy order each head's lie together."""
    rows = weight.flatten(1) if weight.ndim > 1 else weight
    if by_kind:
        return rows.chunk(3)
    parts = rows.reshape(heads, 3, len(rows) // (3 * heads), *rows.shape[1:])
    return tuple(parts[:, i].flatten(0, 1) for i in range(3))


def _place(stem: str, shape: Shape, n_levels: int) -> str | None:
    """What diffusers calls the layer of some weights; None for an unknown one."""
    if stem in ENDS:
        return ENDS[stem]
    match = re.fullmatch(r"(input_blocks|output_blocks)\.(\d+)\.([012])\.(.+)", stem)
    middle = re.fullmatch(r"middle_block\.([012])\.(.+)", stem)
    if middle:
        layer = int(middle[1])
        return _layer("mid_block", layer // 2, layer == 1, middle[2])
    if match is None:
        return None
    index, layer, part = int(match[2]), int(match[3]), match[4]
    if match[1] == "input_blocks":
        level, i = divmod(index - 1, shape.num_res_blocks + 1)
        place, resamples = f"down_blocks.{level}", i == shape.num_res_blocks
    else:
        level, i = divmod(index, shape.num_res_blocks + 1)
        attends = n_levels - 1 - level in shape.levels_with_attention
        place, resamples = f"up_blocks.{level}", layer == 1 + attends
    if not resamples:
        return _layer(place, i, layer == 1, part)
    way = "down" if match[1] == "input_blocks" else "up"
    return f"{place}.{way}samplers.0.{RESNET.get(part, 'conv')}"


def _layer(place: str, index: int, attends: bool, part: str) -> str | None:
    if attends:
        parts = {"norm": "group_norm", "proj_out": "to_out.0", "qkv": ""}
        at = f"{place}.attentions.{index if place != 'mid_block' else 0}"
        return f"{at}.{parts[part]}".rstrip(".") if part in parts else None
    return f"{place}.resnets.{index}.{RESNET[part]}" if part in RESNET else None


def _scheduler(shape: Shape, flags: Flags) -> Config:
    """DDPM's with the variance that the network was trained for; its timesteps are those of
    `space_timesteps` of a number, evenly over all T."""
    fixed = "fixed_small" if flags.sigma_small else "fixed_large"
    noise = flags.noise
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": noise.n_train,
        "beta_schedule": "squaredcos_cap_v2" if noise.kind == "cosine" else "linear",
        "beta_start": noise.beta_start,
        "beta_end": noise.beta_end,
        "variance_type": "learned_range" if shape.learn_sigma else fixed,
        "timestep_spacing": "linspace",
        "prediction_type": "sample" if flags.predict_xstart else "epsilon",
    }


ADM = Format("guided-diffusion", is_adm, adm_network, (MARK,))
