"""score_sde's checkpoints: its variance-preserving DDPM, DDPM++ and NCSN++, and a VE NCSN++.

`save_checkpoint` of yang-song/score_sde_pytorch (Song et al. 2021, arXiv:2011.13456) writes
optimizer, model, ema (a list) and step; what the network is stands in a config beside it. A network
that was trained at any time t in [0, 1] is told 999 t; its timestep i of N stands for (i + 1) / N.
One of a continuous VE model is told its noise level, and becomes an EDM, as Karras et al. 2022
(arXiv:2206.00364) sample it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from torch import Tensor

from ddim_core.checkpoints.formats.format import Format, Network, count, require_size, told_by
from ddim_core.common.foreign import Config
from ddim_core.diffusion.specs import NoiseSpec
from ddim_core.networks.backbones.ncsnpp import CLASS_NAME, FIR_KERNEL

MARKS = ("all_modules.0.weight", "all_modules.0.W")
ATTENTION_SIZE = 16  # pixels, where all published VP models attend
MOST_STEPS = 10**4
ONLY = (
    "of score_sde variance-preserving models (vpsde: ddpm, ddpmpp, ncsnpp) are sampled, and "
    "continuous variance-exploding ones without an output pyramid (as ve/cifar10_ncsnpp_continuous)"
)
EXPLODING = {"sigma_min": 0.01, "sigma_max": 50.0}  # its usual noise levels, of pixels in [0, 1]
SIGMA_DATA = 0.5  # EDM's
MOST_SIGMA = 1e4
VE_UNSAID = (
    "The checkpoint does not say its sampling: noise from 0.01 to 50 of pixels in [0, 1], with "
    "skip_rescale and fir, is assumed, score_sde's default; put its config beside it, config.yml."
)
RES, ATTENTION, OTHER = "r", "a", "o"  # kinds of modules, one letter each
Told = dict[str, Any]


def is_score_sde(state: Mapping[str, Tensor]) -> bool:
    """Tells score_sde's names."""
    return any(mark in state for mark in MARKS)


def score_sde_network(state: Mapping[str, Tensor], settings: Any, hparams: Any = None) -> Network:
    """Reads a state dict of score_sde.

    Args:
        state: Weights by its names.
        settings: Its config as JSON or YAML, with the sections training, model, data, or None.
        hparams: What the file has beside its weights.

    Raises:
        ValueError: If it is sub-VP, or variance exploding but not as `_require_ve` has it, or has
            another network than those, or the settings are of another network.
    """
    told = told_by(hparams, settings)
    section = settings.get("model") if isinstance(settings, Mapping) else None
    told["name"] = section.get("name") if isinstance(section, Mapping) else None
    told = told if {"sde", "nf", "ch_mult"} & told.keys() else {}
    exploding = MARKS[1] in state
    if exploding:
        _require_ve(told)
    else:
        _require_vp(told)
    _require_told(state, told)
    weights = {name: weight for name, weight in state.items() if name != "sigmas"}
    frequencies = weights.pop(MARKS[1], None)
    if frequencies is not None:
        weights = {_one_before(name): weight for name, weight in weights.items()}
    config, looks = _config(weights, told, exploding)
    size, assumed = _image_size(config, told)
    config["sample_size"] = size
    if frequencies is not None:
        if frequencies.shape != (config["nf"],) or not frequencies.isfinite().all():
            raise ValueError(
                f"{MARKS[1]}, the frequencies of the noise level, must be {config['nf']} finite "
                f"numbers; its shape is {list(frequencies.shape)}"
            )
        config |= {"frequencies": frequencies.double().tolist(), "sigma_data": SIGMA_DATA}
        return Network(
            config, weights, NoiseSpec(), _levels(told),
            assumed=[*assumed, *([] if told else [VE_UNSAID])], looks=looks,
        )  # fmt: skip
    if not told:
        assumed.append(
            "The checkpoint does not say its sampling: it is assumed to be variance preserving "
            "(vpsde), trained at whole timesteps (continuous off), "
            f"{'with' if config['skip_rescale'] else 'without'} skip_rescale and "
            f"{'with' if config['fir'] else 'without'} fir; put its config beside it, config.yml."
        )
    noise, scheduler, said = _schedule(told)
    if told.get("continuous"):
        config |= {"time_shift": 1.0, "time_scale": 999.0 / noise.n_train}
    return Network(
        config, weights, noise, scheduler, assumed=assumed, assumed_noise=said, looks=looks
    )  # fmt: skip


def _one_before(name: str) -> str:
    """The name of a module that follows the Fourier features, which are none here."""
    found = re.fullmatch(r"all_modules\.(\d{1,6})\.(.+)", name)
    return f"all_modules.{int(found[1]) - 1}.{found[2]}" if found else name


def _require_ve(told: Told) -> None:
    usual = {"sde": "vesde", "continuous": True, "scale_by_sigma": True, "centered": False,
             "progressive": "none"}  # fmt: skip
    given = {name: told.get(name, value) for name, value in usual.items()}
    given["sde"] = str(given["sde"]).lower()
    differ = [name for name, value in usual.items() if given[name] != value]
    if differ:
        raise ValueError(
            f"{differ[0]} is {given[differ[0]]!r:.40} beside a network that is told the noise "
            f"level by Fourier features; {ONLY}"
        )


def _levels(told: Told) -> Config:
    """EDM's sampler between the levels that it was trained on, doubled: pixels lie in [-1, 1]."""
    low, high = (told.get(name, usual) for name, usual in EXPLODING.items())
    fine = all(type(end) in (int, float) and 0 < end < MOST_SIGMA for end in (low, high))
    if not fine or not low < SIGMA_DATA < high:
        raise ValueError(
            f"sigma_min is {low!r:.20} and sigma_max {high!r:.20} beside the checkpoint; they must "
            f"be numbers above 0, below and above {SIGMA_DATA}"
        )
    return {
        "_class_name": "EDMHeunScheduler", "sigma_min": 2.0 * low, "sigma_max": 2.0 * high,
        "sigma_data": SIGMA_DATA,
    }  # fmt: skip


def _require_vp(told: Told) -> None:
    sde = str(told.get("sde", "vpsde")).lower()
    if sde != "vpsde" or told.get("scale_by_sigma"):
        what = f"sde is {sde[:20]!r}" if sde != "vpsde" else "scale_by_sigma is on"
        raise ValueError(f"{what} in the settings beside the checkpoint; {ONLY}")
    if told.get("centered") is False:
        raise ValueError(
            "data.centered is off in the settings beside the checkpoint; only networks of pixels "
            "in [-1, 1] are sampled"
        )


def _require_told(state: Mapping[str, Tensor], told: Told) -> None:
    if "all_modules.0.weight" in state and state["all_modules.0.weight"].ndim != 2:
        raise ValueError(
            "the network is not told the time (conditional is off), as no sampler here can use it"
        )
    kernel = told.get("fir_kernel")
    if told.get("fir") and kernel and [float(k) for k in kernel] != list(FIR_KERNEL):
        raise ValueError(f"fir_kernel is {list(kernel)}; it must be [1, 3, 3, 1]")


def _config(weights: Mapping[str, Tensor], told: Told, exploding: bool) -> tuple[Config, str]:
    """Reads a network off its weights, module by module; of an exploding one the first module takes
    two features of each frequency."""
    kinds = [_kind(weights, i) for i in range(count(weights, r"all_modules\.(\d+)\."))]
    nf, n_image = weights[MARKS[0]].shape[1] // (1 + exploding), 0
    widths: list[int] = []
    attends: list[int] = []
    n_blocks, n_here, residual, biggan = 0, 0, False, False
    for i, kind in enumerate(kinds[3:], start=3):
        place = f"all_modules.{i}"
        if kind == RES and not _halves(weights, place):
            n_here += 1
            if n_here == 1:
                widths.append(len(weights[f"{place}.Conv_0.bias"]))
            if len(widths) > 1 and n_here > n_blocks:  # of the middle
                break
        elif kind == ATTENTION:
            attends += [len(widths) - 1] if len(widths) - 1 not in attends else []
        elif f"{place}.Conv2d_0.weight" in weights:
            residual = True
        else:  # what ends a level
            n_blocks, n_here = n_here if len(widths) == 1 else n_blocks, 0
            biggan = kind == RES
    try:
        n_image = weights["all_modules.2.weight"].shape[1]
    except (KeyError, IndexError) as error:
        raise ValueError("the weights have score_sde's names and lack all_modules.2") from error
    if n_blocks < 1 or not widths or any(width % nf for width in widths):
        raise ValueError(f"the weights have score_sde's names and are of no network of it; {ONLY}")
    mult = [width // nf for width in widths]
    name = told.get("name") or ("ncsnpp" if biggan else "ddpm")
    config: Config = {
        "_class_name": CLASS_NAME, "in_channels": n_image, "out_channels": n_image,
        "num_class_embeds": None, "name": "ddpm" if name == "ddpm" else "ncsnpp", "nf": nf,
        "ch_mult": mult, "num_res_blocks": n_blocks, "attn_levels": attends,
        "resblock_type": "biggan" if biggan else "ddpm",
        "fir": bool(told.get("fir", residual)) and biggan,
        "skip_rescale": bool(told.get("skip_rescale", biggan)) and name != "ddpm",
        "progressive_input": "residual" if residual else "none",
        "time_scale": 1.0, "time_shift": 0.0,
    }  # fmt: skip
    looks = f"score_sde's {name} with nf {nf}, ch_mult {mult}, num_res_blocks {n_blocks}"
    shown = {"nf": nf, "ch_mult": mult, "num_res_blocks": n_blocks}
    differ = [
        f"{key} {told[key]!r:.40}" for key, value in shown.items()
        if key in told and (list(told[key]) if key == "ch_mult" else told[key]) != value
    ]  # fmt: skip
    if told.get("progressive", "none") != "none":
        differ.append(f"progressive {told['progressive']!r:.40}, of variance-exploding models")
    if differ:
        raise ValueError(
            f"the checkpoint looks like {looks}; the settings beside it say {', '.join(differ)}"
        )
    return config, looks


def _kind(weights: Mapping[str, Tensor], index: int) -> str:
    place = f"all_modules.{index}"
    if f"{place}.NIN_3.W" in weights:
        return ATTENTION
    return RES if f"{place}.GroupNorm_1.weight" in weights else OTHER


def _halves(weights: Mapping[str, Tensor], place: str) -> bool:
    """Whether a block of BigGAN's halves or doubles: it has a shortcut it would not need."""
    shortcut = weights.get(f"{place}.Conv_2.weight")
    return shortcut is not None and shortcut.shape[0] == shortcut.shape[1]


def _image_size(config: Config, told: Told) -> tuple[int, list[str]]:
    attends = config["attn_levels"]
    size, assumed = told.get("image_size"), []
    if size is None:
        if len(attends) != 1:
            raise ValueError(
                "the checkpoint does not say its image size; put its config beside it, config.yml"
            )
        size = ATTENTION_SIZE << attends[0]
        assumed = [
            f"The checkpoint does not say its image size: {size} is assumed, which puts attention "
            f"at {ATTENTION_SIZE} pixels, as in all published VP models."
        ]
    require_size(size, len(config["ch_mult"]))
    sizes = told.get("attn_resolutions")
    here = {size >> level for level in attends}
    if isinstance(sizes, (list, tuple)) and not here <= set(sizes):
        raise ValueError(
            f"the settings beside the checkpoint attend at {list(sizes)} pixels, its weights at "
            f"{sorted(here)}"
        )
    return size, assumed


def _schedule(told: Told) -> tuple[NoiseSpec, Config, list[str]]:
    """alpha_bar(t) = exp(-t^2 (b1 - b0) / 2 - t b0) of a continuous one; else betas from b0 / N to
    b1 / N. Source: arXiv:2011.13456, eqs. 25 and 33."""
    said = [] if told else [
        "The checkpoint does not say its noise schedule: linear from 0.0001 to 0.02 with T = 1000 "
        "is assumed, score_sde's default."
    ]  # fmt: skip
    n = told.get("num_scales", 1000)
    first, last = told.get("beta_min", 0.1), told.get("beta_max", 20.0)
    fine = type(n) is int and 1 <= n <= MOST_STEPS
    if not fine or not all(type(b) in (int, float) and 0 < b < n for b in (first, last)):
        raise ValueError(
            f"num_scales is {n!r:.20}, beta_min {first!r:.20} and beta_max {last!r:.20} beside the "
            f"checkpoint; they must be a whole number in 1..{MOST_STEPS} and numbers below it"
        )
    scheduler: Config = {
        "_class_name": "DDPMScheduler", "num_train_timesteps": n, "beta_schedule": "linear",
        "beta_start": first / n, "beta_end": last / n, "variance_type": "fixed_large",
        "clip_sample": False,  # as its predictors, of which none clips
    }  # fmt: skip
    if not told.get("continuous"):
        return NoiseSpec("linear", n, first / n, last / n), scheduler, said
    times = [i / n for i in range(n + 1)]
    logs = [-0.5 * t * t * (last - first) - t * first for t in times]
    betas = [-math.expm1(now - before) for before, now in pairwise(logs)]
    scheduler["trained_betas"] = betas
    return NoiseSpec("given", n, betas=tuple(betas)), scheduler, said


SCORE_SDE = Format(
    "score_sde", is_score_sde, score_sde_network, MARKS, untrained=("sigmas", MARKS[1])
)
