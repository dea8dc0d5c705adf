"""Pipelines of Stable Diffusion written as one file, by the names of the original code.

The inverse of what `diffusers.loaders.single_file_utils` does when it reads such a file.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from diffusers.loaders.single_file_utils import DIFFUSERS_TO_LDM_MAPPING
from torch import Tensor

State = dict[str, Tensor]
RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
ATTENTION = {
    "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out",
}  # fmt: skip


def original(pipeline: Any) -> State:
    """Returns the weights of a StableDiffusionPipeline or a StableDiffusionXLPipeline."""
    named = unet(pipeline.unet) | vae(pipeline.vae)
    first = plain_names(pipeline.text_encoder)
    second = getattr(pipeline, "text_encoder_2", None)
    prefix = "cond_stage_model." if second is None else "conditioner.embedders.0."
    named |= {f"{prefix}transformer.text_model.{name}": w for name, w in first.items()}
    if second is not None:
        named |= open_clip(second, "conditioner.embedders.1.model.")
    return {name: weight.contiguous() for name, weight in named.items()}


def plain_names(encoder: Any) -> State:
    return {n.removeprefix("text_model."): w for n, w in encoder.state_dict().items()}


def unet(network: Any) -> State:
    each = network.config.layers_per_block + 1
    known = DIFFUSERS_TO_LDM_MAPPING["unet"]
    plain = {**known["layers"], **known["addition_embed_type"]}

    def theirs(name: str) -> str:
        if name in plain:
            return str(plain[name])
        block, part, place, rest = re.fullmatch(
            r"(\w+_blocks?(?:\.\d+)?)\.(\w+)\.(\d+)\.(.*)", name
        ).groups()  # type: ignore[union-attr]
        way, _, level = block.partition(".")
        i, j = int(level or 0), int(place)
        if part == "resnets":
            rest = re.sub(r"^\w+", lambda m: RESNET[m[0]], rest)
        if way == "mid_block":
            return f"middle_block.{1 if part == 'attentions' else 2 * j}.{rest}"
        column = 1 if part == "attentions" else 0
        if part == "downsamplers":
            return f"input_blocks.{each * (i + 1)}.0.op.{rest.removeprefix('conv.')}"
        if part == "upsamplers":
            column = 2 if hasattr(network.up_blocks[i], "attentions") else 1
            return f"output_blocks.{each * (i + 1) - 1}.{column}.{rest}"
        first = 1 if way == "down_blocks" else 0
        blocks = "input_blocks" if way == "down_blocks" else "output_blocks"
        return f"{blocks}.{each * i + j + first}.{column}.{rest}"

    return {f"model.diffusion_model.{theirs(n)}": w for n, w in network.state_dict().items()}


def vae(network: Any) -> State:
    last = len(network.config.up_block_types) - 1

    def theirs(name: str) -> str:
        name = re.sub(r"up_blocks\.(\d)", lambda m: f"up.{last - int(m[1])}", name)
        name = name.replace("down_blocks", "down").replace("samplers.0", "sample")
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        name = name.replace(".resnets.", ".block.").replace("mid_block.attentions.0", "mid.attn_1")
        if "attn_1" in name:
            for ours, other in ATTENTION.items():
                name = name.replace(f".{ours}.", f".{other}.")
        return name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")

    def shaped(name: str, weight: Tensor) -> Tensor:
        is_linear = "attentions" in name and weight.ndim == 2
        return weight[:, :, None, None] if is_linear else weight

    return {f"first_stage_model.{theirs(n)}": shaped(n, w) for n, w in network.state_dict().items()}


def open_clip(encoder: Any, prefix: str) -> State:
    told = DIFFUSERS_TO_LDM_MAPPING["openclip"]
    found: State = {}
    weights = encoder.state_dict()
    for ours, theirs in told["layers"].items():
        if ours in weights:
            found[theirs] = weights[ours].T if theirs == "text_projection" else weights[ours]
    layers = "text_model.encoder.layers."
    inner = {n.removeprefix(layers): w for n, w in weights.items() if n.startswith(layers)}
    names = {
        ours: theirs for ours, theirs in told["transformer"].items()
        if not ours.startswith(("text_model", "transformer"))
    }  # fmt: skip
    for name, weight in inner.items():
        if re.search(r"\.[kv]_proj\.", name):
            continue
        new = name
        for ours, theirs in names.items():
            new = new.replace(ours, theirs)
        if ".q_proj." in name:
            three = [inner[name.replace(".q_proj.", f".{each}_proj.")] for each in "qkv"]
            new, weight = new.replace(".q_proj.", ".in_proj_"), torch.cat(three)
        found[f"transformer.resblocks.{new}"] = weight
    return {f"{prefix}{name}": weight for name, weight in found.items()}
