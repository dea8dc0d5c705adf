"""DiT, SiT, REPA and LightningDiT, whose weights a `DiffusionTransformer` takes by their own names.

Their shapes say all but four things: how many heads there are, which of the four it is (DiT's and
SiT's are the same to the letter), over what time it runs, and what its latents were divided by. The
`args` or `config` that a training saves beside its weights says these, or a config.json beside the
file, such as {"model": "SiT-XL/2"}, or the name of a released file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddim_core.checkpoints.formats.format import Format, Network, told_by
from ddim_core.checkpoints.formats.latents import Latents
from ddim_core.common.foreign import Config
from ddim_core.diffusion.specs import NoiseSpec
from ddim_core.networks.backbones.transformer import CLASS_NAME

MARK = "y_embedder.embedding_table.weight"
NAMES = (MARK, "x_embedder.proj.weight", "t_embedder.mlp.0.weight", "pos_embed",
         "final_layer.linear.weight")  # fmt: skip
PROJECTORS = "projectors."  # of REPA, which training alone needs
HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16, 1536: 24, 1792: 28}  # of all published, by width
N_TIMES = 1000  # a flow's timesteps, as diffusers' schedulers count them
USUAL_ROWS = 1001  # ImageNet's classes and the one for none
LEAST = 1e-3  # of what times and latents are multiplied by
UNSAID_MULTIPLIER = 0.18215  # of LightningDiT's code, where its config has no latent_multiplier
FLOW, CURVED = "FlowMatchEulerDiscreteScheduler", "FlowODEScheduler"
PATHS = {"linear": "linear", "gvp": "gvp", "cosine": "gvp", "vp": "vp"}  # REPA says cosine
ENDS = {"gvp": 0.0, "vp": 1e-3}  # of SiT's ODE on curved paths, as shares of noise


@dataclass(frozen=True)
class Kind:
    """One of the codes.

    Attributes:
        whose: For people.
        to_data: Whether its time runs from noise to data; None of DiT, which is no flow.
    """

    whose: str
    to_data: bool | None


DIT, SIT = Kind("DiT", None), Kind("SiT", True)
REPA, LIGHTNING = Kind("REPA", False), Kind("LightningDiT", True)
BY_NAME = {"DiT-": DIT, "SiT-": SIT, "REPA-": REPA, "LightningDiT-": LIGHTNING}


def is_transformer(state: Mapping[str, Tensor]) -> bool:
    """Tells the names of these networks."""
    return all(name in state for name in NAMES)


def model_in_name(stem: str) -> Config | None:
    """What the name of a released file says, such as DiT-XL-2-256x256; None of any other."""
    match = re.fullmatch(r"(DiT|SiT)-(XL|L|B|S)-(\d)-\d+x\d+", stem)
    return {"model": f"{match[1]}-{match[2]}/{match[3]}"} if match else None


def transformer(state: Mapping[str, Tensor], settings: Any, hparams: Any) -> Network:
    """Reads one of these networks off its weights.

    Args:
        state: Weights by the originals' names.
        settings: Those beside its file: a training's, or {"model": "SiT-XL/2"}.
        hparams: What the file has beside its weights.

    Raises:
        ValueError: If the weights are of another network, or nothing says which of the four it is,
            how many heads it has, or that it predicts what is sampled here.
    """
    told = told_by(hparams, settings)
    kind = _kind(state, told)
    path = _path(kind, told)
    kept = {n: w for n, w in state.items() if not n.startswith(PROJECTORS)}
    config = _shape(kept, told)
    if kind.to_data is not None:
        _keep_velocity(kept, config)
    config |= {
        "time_scale": 1 if kind.to_data is None else N_TIMES, "to_data": bool(kind.to_data),
    }  # fmt: skip
    null_label, assumed = _null_label(config["num_class_embeds"], told)
    scheduler = _noise(config["in_channels"] < config["out_channels"])
    if kind.to_data is not None:
        # LightningDiT shifts the time from noise; diffusers the share of noise.
        shift = 1.0 / _positive("timestep_shift", told.get("timestep_shift") or 1.0)
        scheduler = {"_class_name": FLOW, "num_train_timesteps": N_TIMES, "shift": shift}
        if path != "linear":
            scheduler = _curved(path, shift)
        assumed += _assumed_path(kind, told)
    normed, multiplier, more = _latents(told) if kind is LIGHTNING else (False, None, [])
    scaled = None
    if multiplier is not None and not normed:
        n = config["in_channels"]
        scaled = Latents("LightningDiT's autoencoder", (1.0 / multiplier,) * n, (0.0,) * n)
    return Network(
        config, kept, NoiseSpec(), scheduler, latents=scaled, null_label=null_label,
        assumed=assumed + more, latent_multiplier=multiplier if normed else None,
        looks=_looks(kind, config),
    )  # fmt: skip


def _looks(kind: Kind, config: Config) -> str:
    shown = ("hidden_size", "num_hidden_layers", "num_attention_heads", "patch_size",
             "in_channels", "sample_size")  # fmt: skip
    return f"{kind.whose} with {', '.join(f'{name} {config[name]}' for name in shown)}"


def _latents(told: Mapping[str, Any]) -> tuple[bool, float | None, list[str]]:
    """Of LightningDiT: whether latents were normed by channel, what they were multiplied by (None:
    their autoencoder's own factor), and what is assumed. A training's config, which names a
    `model_type`, means its code's defaults where it is silent (`train.py` there)."""
    has_config = "model_type" in told
    normed = told.get("latent_norm", not has_config)
    if type(normed) is not bool:
        raise ValueError(
            f"latent_norm is {normed!r:.40} beside the weights; it must be true or false"
        )
    usual = UNSAID_MULTIPLIER if has_config else 1.0
    multiplier = _positive("latent_multiplier", told.get("latent_multiplier", usual))
    missing = {"latent_norm": normed, "latent_multiplier": multiplier}
    missing = {name: value for name, value in missing.items() if name not in told}
    if not missing:
        return normed, multiplier, []
    if not (normed or has_config or "latent_multiplier" in told):
        return False, None, [
            "The checkpoint does not say what its latents were multiplied by: its autoencoder's "
            "own factor is assumed."
        ]  # fmt: skip
    whose = "the default of LightningDiT's code" if has_config else (
        "as of all that LightningDiT published"
    )  # fmt: skip
    values = ", ".join(f"{name} {value}" for name, value in missing.items())
    return normed, multiplier, [
        f"The checkpoint does not say how its latents were normed: {values} is assumed, {whose}."
    ]  # fmt: skip


def _noise(learns_variance: bool) -> Config:
    """DiT's noise, as `create_diffusion` of its code has it: no clipping, timesteps over all T."""
    return {
        "_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "beta_schedule": "linear",
        "beta_start": 1e-4, "beta_end": 0.02, "clip_sample": False,
        "timestep_spacing": "linspace", "prediction_type": "epsilon",
        "variance_type": "learned_range" if learns_variance else "fixed_large",
    }  # fmt: skip


def _positive(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not LEAST <= value <= 1.0 / LEAST:
        raise ValueError(
            f"{name} is {value!r:.40} beside the weights; it must be a number from {LEAST:g} to "
            f"{1.0 / LEAST:g}"
        )
    return float(value)


def _kind(state: Mapping[str, Tensor], told: Mapping[str, Any]) -> Kind:
    if any(name.startswith(PROJECTORS) for name in state) or "proj_coeff" in told:
        return REPA
    named = [str(told[key]) for key in ("model", "model_type") if key in told]
    for name in named:
        for start, kind in BY_NAME.items():
            if name.startswith(start):
                return kind
    only_theirs = ("feat_rope.freqs_cos", "blocks.0.mlp.w12.weight", "blocks.0.norm1.weight")
    if any(name in state for name in only_theirs):
        return LIGHTNING
    said = f"its model is {named[0]!r:.60}" if named else "nothing beside them says which"
    raise ValueError(
        f"the weights are of a diffusion transformer, of DiT, SiT, REPA or LightningDiT alike, and "
        f'{said}; write it into a config.json beside the file, as {{"model": "SiT-XL/2"}} (DiT-, '
        "SiT-, REPA- or LightningDiT-)"
    )


def _path(kind: Kind, told: Mapping[str, Any]) -> str:
    path, predicts = str(told.get("path_type", "linear")), str(told.get("prediction", "velocity"))
    if kind.to_data is not None and path.lower() not in PATHS:
        raise ValueError(f"path_type is {path!r:.40}; it must be one of {', '.join(PATHS)}")
    if kind.to_data is not None and predicts not in ("velocity", "v"):
        raise ValueError(
            f"prediction is {predicts!r:.40}; of {kind.whose} what predicts velocity is sampled"
        )
    return PATHS.get(path.lower(), "linear")


def _curved(path: str, shift: float) -> Config:
    if shift != 1.0:
        raise ValueError(
            f"timestep_shift is {1.0 / shift:g} beside the weights, and path_type {path}; times "
            "are shifted on the linear path alone"
        )
    return {
        "_class_name": CURVED, "num_train_timesteps": N_TIMES, "path": path,
        "last_sigma": ENDS[path], "prediction_type": "flow_prediction",
    }  # fmt: skip


def _assumed_path(kind: Kind, told: Mapping[str, Any]) -> list[str]:
    if "path_type" in told:
        return []
    return [
        f"The checkpoint does not say its path: {kind.whose}'s usual one is assumed, a straight "
        "line from noise to data, and that it predicts velocity."
    ]


def _shape(state: Mapping[str, Tensor], told: Mapping[str, Any]) -> Config:
    """The configuration, as far as the weights' shapes say it."""
    patches, places = state["x_embedder.proj.weight"].shape, state["pos_embed"].shape
    side = math.isqrt(places[1]) if len(places) == 3 else 0
    if len(patches) != 4 or len(places) != 3 or side**2 != places[1]:
        raise ValueError(
            f"the weights take patches of shape {list(patches)} and places of shape "
            f"{list(places)}; they must be [width, channels, side, side] and [1, a square, width]"
        )
    width, in_channels, patch, _ = patches
    swiglu, rms_norm = "blocks.0.mlp.w3.weight" in state, "blocks.0.norm1.weight" in state
    into = state.get("blocks.0.mlp.w3.weight", state.get("blocks.0.mlp.fc2.weight"))
    modulation = state.get("blocks.0.adaLN_modulation.1.bias")
    if into is None or modulation is None:
        raise ValueError("the weights of its first block are of no DiT, SiT or LightningDiT")
    blocks = {name.split(".")[1] for name in state if name.startswith("blocks.")}
    return {
        "_class_name": CLASS_NAME,
        "sample_size": side * patch,
        "patch_size": patch,
        "in_channels": in_channels,
        "out_channels": len(state["final_layer.linear.weight"]) // patch**2,
        "hidden_size": width,
        "intermediate_size": into.shape[1],
        "num_hidden_layers": len(blocks),
        "num_attention_heads": _heads(state, width, told),
        "num_class_embeds": len(state["y_embedder.embedding_table.weight"]),
        "rms_norm": rms_norm,
        "qk_norm": "blocks.0.attn.q_norm.weight" in state,
        "swiglu": swiglu,
        "rope": "feat_rope.freqs_cos" in state,
        "shift": len(modulation) == 6 * width,
    }


def _heads(state: Mapping[str, Tensor], width: int, told: Mapping[str, Any]) -> int:
    for name in ("blocks.0.attn.q_norm.weight", "feat_rope.freqs_cos"):  # of one head's width
        if name in state:
            return int(width // max(state[name].shape[-1], 1))
    n_heads = told.get("num_heads", HEADS.get(width))
    if type(n_heads) is not int or n_heads < 1 or width % n_heads:
        asked = "nothing says its" if n_heads is None else f"{n_heads!r:.40} are said to be its"
        raise ValueError(
            f"the width of the network is {width} and {asked} number of heads, which weights do "
            'not show; write it into a config.json beside the file, as {"num_heads": 6}'
        )
    return n_heads


def _keep_velocity(state: dict[str, Tensor], config: Config) -> None:
    """Drops the half of the last layer that SiT computes and leaves: of DiT's learned variance."""
    n_in, n_out = config["in_channels"], config["out_channels"]
    if n_out == 2 * n_in:
        for name in ("final_layer.linear.weight", "final_layer.linear.bias"):
            weight = state[name]
            rows = weight.reshape(-1, n_out, *weight.shape[1:])[:, :n_in]
            state[name] = rows.reshape(-1, *weight.shape[1:]).contiguous()
        config["out_channels"] = n_in


def _null_label(n_rows: int, told: Mapping[str, Any]) -> tuple[int | None, list[str]]:
    n_classes = told.get("num_classes", n_rows - 1)
    if n_classes not in (n_rows, n_rows - 1):
        raise ValueError(
            f"num_classes is {n_classes!r:.40} beside the weights, which have {n_rows} labels; it "
            f"must be {n_rows - 1}, with one for no class, or {n_rows}"
        )
    if n_classes == n_rows or n_rows < 2:
        return None, []
    if n_rows == USUAL_ROWS or "num_classes" in told:
        return n_rows - 1, []
    return n_rows - 1, [
        f"The checkpoint does not say its number of classes: the last of its {n_rows} labels is "
        "taken for the one of no class, as their trainings have it."
    ]


TRANSFORMERS = Format("DiT, SiT, REPA and LightningDiT", is_transformer, transformer, (MARK,))


def latent_stats(content: Any, n_channels: int, name: str) -> tuple[list[float], list[float]]:
    """Reads LightningDiT's `latents_stats.pt`: mean and standard deviation of each channel.

    Args:
        content: What the file holds.
        n_channels: Of the latents.
        name: Of the file, for messages.

    Raises:
        ValueError: If it holds anything else, or numbers that nothing can be divided by.
    """
    told = [content.get(key) if isinstance(content, Mapping) else None for key in ("mean", "std")]
    found = [t.detach().double().flatten() for t in told if isinstance(t, Tensor)]
    if [len(numbers) for numbers in found] != [n_channels, n_channels]:
        raise ValueError(
            f"{name} must hold 'mean' and 'std', a number for each of {n_channels} channels of "
            "latents, as LightningDiT writes them"
        )
    mean, std = found
    if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
        raise ValueError(f"{name} holds a mean or std that is not finite, or a std of 0 or less")
    return mean.tolist(), std.tolist()
