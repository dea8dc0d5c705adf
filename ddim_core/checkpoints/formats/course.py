"""The small U-Net of KAIST's diffusion course, as a diffusers UNet2DModel with a wide time.

Names and shapes of its assignments 1 and 2 (image_diffusion_todo/network.py). Its shape is read
off the weights. A class-conditional one keeps "no class" in row 0 of its class embedding, where
the networks of this project have it last, and adds the class embedding to the time embedding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ddim_core.checkpoints.formats.format import Format, Network, told_by
from ddim_core.diffusion.specs import NoiseSpec
from ddim_core.networks.backbones.wide_time import CLASS_NAME
from ddim_core.safe_files.safe_load import plain_values

MARKS = ("head.weight", "time_embedding.mlp.0.weight")
NETWORK = "network."
DEFAULT_SIZE = 64  # pixels, in all of the course's trainings
SIZE_NAMES = ("image_resolution", "image_size", "resolution")
RESNET = {
    "block1.0": "norm1", "block1.2": "conv1", "temb_proj.1": "time_emb_proj", "block2.0": "norm2",
    "block2.3": "conv2", "shortcut": "conv_shortcut",
}  # fmt: skip
ATTENTION = {
    "attn.group_norm": "group_norm", "attn.proj_q": "to_q", "attn.proj_k": "to_k",
    "attn.proj_v": "to_v", "attn.proj": "to_out.0",
}  # fmt: skip
ENDS = {
    "head": "conv_in", "tail.0": "conv_norm_out", "tail.2": "conv_out",
    "time_embedding.mlp.0": "time_embedding.linear_1",
    "time_embedding.mlp.2": "time_embedding.linear_2", "class_embedding": "class_embedding",
}  # fmt: skip


def is_course(state: Mapping[str, Tensor]) -> bool:
    """Tells the course's names, with `network.` before them or without."""
    return all(mark in state or NETWORK + mark in state for mark in MARKS)


def course_network(state: Mapping[str, Tensor], settings: Any, hparams: Any) -> Network:
    """Translates a state dict of the course, for `wide_time_unet`.

    Args:
        state: Weights by the course's names.
        settings: Those beside its file, where that has none itself.
        hparams: What the file has beside the weights; plain values or inert modules.

    Raises:
        ValueError: If the weights are of another network.
    """
    told = hparams if hparams is not None else settings
    weights = {name.removeprefix(NETWORK): weight for name, weight in state.items()}
    down = _levels(weights, "downblocks")
    widths = [len(weights[f"downblocks.{level[-1]}.block2.3.bias"]) for level in down]
    attends = [f"downblocks.{level[0]}.attn.proj_q.weight" in weights for level in down]
    if widths[0] != len(weights["head.weight"]):
        raise ValueError("ch_mult does not start with 1 in this network, as a UNet2DModel needs")
    size, assumed = _image_size(told)
    config = {
        "_class_name": CLASS_NAME, "sample_size": size,
        "time_features": weights["time_embedding.mlp.0.weight"].shape[1],
        "in_channels": weights["head.weight"].shape[1],
        "out_channels": len(weights["tail.2.bias"]),
        "block_out_channels": widths, "layers_per_block": len(down[0]),
        "down_block_types": [_block("Down", a) for a in attends],
        "up_block_types": [_block("Up", a) for a in reversed(attends)],
        "attention_head_dim": None, "norm_num_groups": 32, "norm_eps": 1e-5,
    }  # fmt: skip
    places = _places("down", down) | _places("up", _levels(weights, "upblocks"))
    translated = {}
    for name, weight in weights.items():
        if name.startswith("var_scheduler."):
            continue
        in_attention = ".attn.proj" in name and weight.ndim == 4
        translated[_name(name, places)] = (
            weight[:, :, 0, 0].contiguous() if in_attention else weight
        )
    null_label: int | None = None
    if "class_embedding.weight" in translated:
        rows = translated["class_embedding.weight"]
        config["num_class_embeds"], null_label = len(rows), len(rows) - 1
        translated["class_embedding.weight"] = torch.cat([rows[1:], rows[:1]])
    noise, assumed_noise = course_noise(state, told)
    return Network(
        config, translated, noise, null_label=null_label, assumed=assumed,
        assumed_noise=assumed_noise,
        looks=f"the course's with levels of {widths} channels, num_res_blocks {len(down[0])}",
    )  # fmt: skip


def course_noise(state: Mapping[str, Tensor], hparams: Any) -> tuple[NoiseSpec, list[str]]:
    """The noise schedule beside the course's weights: its betas themselves, or its parameters."""
    betas = state.get("var_scheduler.betas")
    if betas is not None:
        return NoiseSpec("given", len(betas), betas=tuple(betas.double().tolist())), []
    told = told_by(hparams)
    names = ("beta_1", "beta_T")
    if all(name in told for name in names):
        n_train: Any = told.get(
            "num_train_timesteps", told.get("num_diffusion_train_timesteps", 1000)
        )
        kind: Any = "quad" if told.get("mode") == "quad" else "linear"
        return NoiseSpec(kind, int(n_train), float(told["beta_1"]), float(told["beta_T"])), []
    return NoiseSpec(), [
        "The checkpoint does not say its noise schedule: the course's default is assumed, linear "
        "from 0.0001 to 0.02 with T = 1000."
    ]


def _image_size(hparams: Any) -> tuple[int, list[str]]:
    for name, value in plain_values(hparams):
        if name in SIZE_NAMES and isinstance(value, int):
            return value, []
    return DEFAULT_SIZE, [
        f"The checkpoint does not say its image size: {DEFAULT_SIZE} is assumed, the course's."
    ]


def _block(direction: str, attends: bool) -> str:
    return f"{'Attn' if attends else ''}{direction}Block2D"


def _levels(weights: Mapping[str, Tensor], blocks: str) -> list[list[int]]:
    """The indices of each level's residual blocks; a resampling block ends a level."""
    kinds: dict[int, str] = {}
    for name in weights:
        if match := re.match(rf"{blocks}\.(\d+)\.(block1|main)\.", name):
            kinds[int(match[1])] = match[2]
    levels: list[list[int]] = [[]]
    for index in sorted(kinds):
        if kinds[index] == "main":
            levels.append([])
        else:
            levels[-1].append(index)
    if sorted(kinds) != list(range(len(kinds))) or not all(levels):
        raise ValueError(f"the weights of {blocks} are not those of the course's network")
    return levels


def _places(direction: str, levels: list[list[int]]) -> dict[str, str]:
    """What diffusers calls each block of a direction."""
    found = {}
    for i, level in enumerate(levels):
        for j, index in enumerate(level):
            found[f"{direction}blocks.{index}"] = f"{direction}_blocks.{i}.#.{j}"
        found[f"{direction}blocks.{level[-1] + 1}"] = f"{direction}_blocks.{i}"
    return found


def _name(name: str, places: Mapping[str, str]) -> str:
    """The name that diffusers gives to a weight; an unknown one stays as it is."""
    stem, _, kind = name.rpartition(".")
    if stem in ENDS:
        return f"{ENDS[stem]}.{kind}"
    match = re.fullmatch(r"((down|up|middle)blocks\.(\d+))\.(.+)", stem)
    if not match:
        return name
    block, direction, index, part = match.groups()
    if part == "main":
        return f"{places[block]}.{direction}samplers.0.conv.{kind}"
    attends = part in ATTENTION
    at = f"mid_block.#.{0 if attends else index}" if direction == "middle" else places[block]
    at = at.replace("#", "attentions" if attends else "resnets")
    return f"{at}.{(ATTENTION if attends else RESNET).get(part, part)}.{kind}"


COURSE = Format("the course", is_course, course_network, (NETWORK + MARKS[1], MARKS[1]))
