"""One file of weights: what is in it, whose network it is, and the pipeline it becomes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ddim_core.checkpoints.checkpoint import (
    MOST_STEPS,
    WEIGHTS_NAME,
    Provenance,
    is_step,
    save_pipeline,
)
from ddim_core.checkpoints.formats.format import Network
from ddim_core.checkpoints.formats.registry import FORMATS, diffusers_looks, nearest_form
from ddim_core.checkpoints.formats.transformers import model_in_name
from ddim_core.checkpoints.scheduler import noise_scheduler
from ddim_core.checkpoints.state_names import (
    EMA,
    average_list,
    named,
    network_keys,
    prefixes_of,
    split_networks,
)
from ddim_core.checkpoints.weight_files import save_settings, save_state
from ddim_core.common.late import late
from ddim_core.diffusion.scheduler_config import class_of, without_betas
from ddim_core.diffusion.specs import NoiseSpec, Weights
from ddim_core.networks.backbones.registry import backbone, is_backbone
from ddim_core.networks.checks import (
    current_names,
    laid_out,
    require_fit,
    require_sampled,
    require_sane,
)
from ddim_core.safe_files.safe_load import read_weights, require_tensors
from ddim_core.safe_files.settings import read_settings
from ddim_core.safe_files.shards import is_index, read_shards

if TYPE_CHECKING:
    import diffusers
else:
    diffusers = late("diffusers")

EMA_KEYS = ("unet_ema", "ema", "ema_state_dict", "model_ema", "ema_model", "state_dict_ema")
RAW_KEYS = ("state_dict", "model", "model_state_dict", "unet", "network", "net")
INNER_KEYS = ("shadow", "state_dict", "module")
STEP_KEYS = ("training_step", "global_step", "step", "global_steps", "steps")
TOLD_KEYS = ("hparams", "hyper_parameters", "args", "config")  # of a training, beside its weights
NO_SCHEDULE = (
    "The checkpoint does not say its noise schedule: linear from 0.0001 to 0.02 with T = 1000 is "
    "assumed, the default of diffusers."
)
SCHEDULER = "scheduler/scheduler_config.json"
STEP_NAMES = re.compile(
    r"(?:ckpt_|model-?|network-snapshot-|ema_0\.\d{1,9}_)(\d{1,12})|.+-(\d{7})-\d\.\d{3}|(\d{7})"
)
N_STATES_WITH_EMA = 5  # the official list: network, optimiser, epoch, step, EMA


@dataclass(frozen=True, eq=False)
class Found:
    """What a weights file holds.

    Attributes:
        state: The chosen weights by name.
        weights: Which of two they are; None if there was no choice.
        training_step: Optimiser steps behind them, if it says.
        hparams: What it has beside weights.
    """

    state: dict[str, Tensor]
    weights: Weights | None = None
    training_step: int | None = None
    hparams: Any = None


def adopt_file(files: Mapping[str, Path], out: Path, weights: Weights) -> Network:
    """Writes a pipeline folder of one weights file, and returns what it holds; see `adopt`.

    Args:
        files: `weights`; and, where they are, `settings` (JSON or YAML) and `scheduler` (the
            config of a diffusers scheduler).
        out: An empty folder.
        weights: Which to take where it has both.

    Raises:
        ValueError: If its network is not known or its settings are of another.
    """
    path = files["weights"]
    settings = read_settings(files["settings"]) if "settings" in files else None
    found = chosen_weights(_content(files), path.name, weights, settings)
    state = found.state
    known = next((form for form in FORMATS if form.fits(state)), None)
    if known is not None:
        hparams = model_in_name(path.stem) if found.hparams is None else found.hparams
        network = known.read(state, settings, hparams)
    else:
        network = _diffusers_network(state, settings, path.name)
    require_sane({"num_train_timesteps": network.noise.n_train}, path.name)
    step = found.training_step if found.training_step is not None else step_in_name(path)
    _write(out, network, path.name)
    assumed = network.assumed + ([] if "scheduler" in files else network.assumed_noise)
    Provenance(step, network.null_label, found.weights, tuple(assumed)).write(out)
    if "scheduler" in files:
        require_sampled(read_settings(files["scheduler"]))
        shutil.copyfile(files["scheduler"], out / SCHEDULER)
    return network


def name_scheduler(out: Path) -> None:
    """Names a scheduler without betas in a folder's index, where one was made that names DDPM's."""
    index, config = out / "model_index.json", out / "scheduler" / "scheduler_config.json"
    if not (index.exists() and config.exists()):
        return
    told, parts = read_settings(config), read_settings(index)
    named = ["diffusers", class_of(told)]
    if without_betas(told) and parts.get("scheduler") != named:
        save_settings({**parts, "scheduler": named}, index)


def _content(files: Mapping[str, Path]) -> Any:
    """What the weights file holds, or those that its index names; and an average's file beside."""
    path = files["weights"]
    content = read_shards(path) if is_index(path) else read_weights(path)
    if "average" not in files:
        return content
    both = [content, read_weights(files["average"])]
    keys = (*EMA_KEYS, *RAW_KEYS)
    for i, held in enumerate(both):
        if isinstance(held, Mapping):
            both[i] = next((held[k] for k in keys if isinstance(held.get(k), Mapping)), held)
    return {RAW_KEYS[0]: both[0], EMA_KEYS[0]: both[1]}


def chosen_weights(
    content: Any, name: str, weights: Weights, settings: Mapping[str, Any] | None = None
) -> Found:
    """Finds the weights in what a file holds: a state dict, a list of states, or named ones.

    Args:
        content: What it holds.
        name: Of the file.
        weights: Which to take where it has both.
        settings: The configuration beside it, which names the weights of a list.

    Raises:
        ValueError: If there are none, or of several networks.
    """
    if not isinstance(content, Mapping) and average_list(content):
        return _chosen(None, content, None, None, name, weights, settings)
    if isinstance(content, (list, tuple)) and content:  # the official code's `states`
        has_ema = len(content) >= N_STATES_WITH_EMA
        ema = content[-1] if has_ema else None
        told = content[3] if len(content) > 3 and isinstance(content[3], int) else None
        step = sound_step(told, f"the step of {name}")
        return _chosen(content[0], ema, step, None, name, weights, settings)
    if not isinstance(content, Mapping):
        raise ValueError(f"{name} holds a {type(content).__name__}; it must hold a state dict")
    ema, raw = _under_keys(content, EMA_KEYS, name), _under_keys(content, RAW_KEYS, name)
    if ema is None:  # torch_ema's own state, perhaps with its network beside it
        ema = average_list(content)
    if ema is None and raw is None:  # keys of somebody's own
        others = network_keys(content)
        ema = _under_keys(content, tuple(k for k in others if EMA.search(k)), name)
        raw = _under_keys(content, tuple(k for k in others if not EMA.search(k)), name)
    there = (key for key in STEP_KEYS if isinstance(content.get(key), int))
    steps = (sound_step(content[key], f"{key} of {name}") for key in there)
    if ema is None and raw is None:
        return _chosen(content, None, None, None, name, weights, settings)
    hparams = next((content[key] for key in TOLD_KEYS if key in content), None)
    return _chosen(raw, ema, next(steps, None), hparams, name, weights, settings)


def _under_keys(content: Mapping[str, Any], keys: tuple[str, ...], name: str) -> Any:
    """The first of some keys that holds weights; of two U-Nets none is the right one."""
    held = [content[k] for k in keys if isinstance(content.get(k), Mapping)]
    held += [
        content[k] for k in keys if k in EMA_KEYS and isinstance(content.get(k), (list, tuple))
    ]
    networks = [key for key in keys if prefixes_of(content.get(key))]
    if len(networks) > 1:
        shown = ", ".join(map(repr, networks))
        raise ValueError(
            f"{name} holds {len(networks)} networks, under {shown}; write the one that is meant "
            "into a file of its own"
        )
    return content[networks[0]] if networks else next(iter(held), None)


def sound_step(step: Any, what: str) -> int | None:
    """Returns a number of training steps that a checkpoint tells; None where it tells none.

    Raises:
        ValueError: If it is none, such as -5.
    """
    if step is not None and not is_step(step):
        raise ValueError(f"{what} is {step!r:.50}; it must be a whole number in 0..{MOST_STEPS}")
    return None if step is None else int(step)


def step_in_name(path: Path) -> int | None:
    """The step in the names that the official code (ckpt_5000.pth), pytorch_diffusion
    (model-790000.ckpt), guided-diffusion (ema_0.9999_500000.pt, model500000.pt), DiT (0400000.pt),
    EDM and EDM2 (network-snapshot-0134217-0.050.pkl, in thousands of images) give, which stands
    nowhere else."""
    match = STEP_NAMES.fullmatch(path.stem)
    return int(match[match.lastindex or 0]) if match else None


def said_by_name(path: Path) -> list[Any]:
    """What a file's name says of it: the step, and the model where it is a released one."""
    return [step_in_name(path), *filter(None, [model_in_name(path.stem)])]


def _chosen(
    raw: Any, ema: Any, step: int | None, hparams: Any, name: str, weights: Weights,
    settings: Mapping[str, Any] | None,
) -> Found:  # fmt: skip
    raw, ema = _inner(raw), _inner(ema)
    _require_no_latents(raw, name, "first_stage_model.")
    if ema is None:  # Lightning keeps both under one key
        raw, ema = split_networks(raw, name)
    use_ema = ema is not None and (weights == "ema" or raw is None)
    listed = average_list(ema) if use_ema else None
    if listed is not None:
        state = named(listed, _parameters(raw, listed, settings, name), name)
        state |= {n: w for n, w in _untrained(raw, name).items() if n not in state}
    else:
        first, average = split_networks(ema if use_ema else raw, name)
        state = average if use_ema and average is not None else first  # ema_pytorch keeps both
    tensors = require_tensors(state, name)
    which: Weights | None = None
    if ema is not None and raw is not None:
        which = "ema" if use_ema else "raw"
    return Found(tensors, which, step, hparams)


def _inner(state: Any) -> Any:
    for key in INNER_KEYS:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    return state


def _parameters(
    raw: Any, listed: list[Tensor], settings: Mapping[str, Any] | None, name: str
) -> Mapping[str, Tensor]:
    """The parameters of a list of weights, by name: of the configuration, or, without one, of the
    network that it is an average of."""
    if settings is not None and "block_out_channels" in settings:
        return dict(laid_out(diffusers.UNet2DModel, settings, len(listed), name).named_parameters())
    weights, _ = split_networks(raw, name)
    if isinstance(weights, Mapping):
        beside = _untrained(raw, name)
        trained = {n: w for n, w in weights.items() if n not in beside}
        for known in (weights, trained):
            if len(known) == len(listed):
                return known
    raise ValueError(
        f"{name} holds averaged weights as a list, without names; the config.json of its network "
        "must lie beside it"
    )


def _untrained(raw: Any, name: str) -> dict[str, Tensor]:
    """What lies among a network's weights and is none, such as its schedule."""
    weights, _ = split_networks(raw, name)
    known = isinstance(weights, Mapping) and [form for form in FORMATS if form.fits(weights)]
    return {n: w for n, w in weights.items() if n in known[0].untrained} if known else {}


def _require_no_latents(state: Any, name: str, mark: str = "") -> None:
    """Refuses a file of latent diffusion; with a mark, where it is there besides."""
    starts = ("model.diffusion_model.", mark) if mark else ("model.diffusion_model.",)
    names = [key for key in state if isinstance(key, str)] if isinstance(state, Mapping) else []
    if all(any(key.startswith(start) for key in names) for start in starts):
        raise ValueError(
            f"{name} is a single file of latent diffusion; as .safetensors it is opened beside a "
            "pipeline's folder or hub id of its kind (--configuration). Others convert it once "
            "with diffusers' StableDiffusionPipeline.from_single_file(file).save_pretrained(folder)"
        )


def _diffusers_network(state: dict[str, Tensor], settings: Any, name: str) -> Network:
    _require_no_latents(state, name)
    if "conv_in.weight" not in state:
        raise ValueError(
            f"the weights in {name} have names of no known network, such as {next(iter(state))!r}; "
            f"known are those of diffusers, {', '.join(form.whose for form in FORMATS)}"
            f"{nearest_form(state)}"
        )
    if settings is None:
        raise ValueError(f"{name} has diffusers' names; its config.json must lie beside it")
    kind = settings.get("_class_name", "UNet2DModel")
    if kind != "UNet2DModel" and not is_backbone(settings):
        raise ValueError(f"the configuration beside {name} is of a {kind}, not a UNet2DModel")
    looks = diffusers_looks(current_names(state)) if kind == "UNet2DModel" else ""
    return Network(settings, state, NoiseSpec(), assumed_noise=[NO_SCHEDULE], looks=looks)


def _write(out: Path, network: Network, name: str) -> None:
    """Saves a network as a pipeline; one that diffusers has not gets no index that says it had."""
    try:
        _write_network(out, network, name)
    except ValueError as error:
        if not network.looks:
            raise
        raise ValueError(f"{error} (it looks like {network.looks})") from error


def _write_network(out: Path, network: Network, name: str) -> None:
    if is_backbone(network.config):
        backbone(network.config, network.state, name)
        (out / "unet").mkdir(parents=True)
        save_state(network.state, out / "unet" / WEIGHTS_NAME)
        save_settings(network.config, out / "unet" / "config.json")
        noise_scheduler(network.noise).save_pretrained(out / "scheduler")
    else:
        require_fit(diffusers.UNet2DModel, network.config, network.state, name)
        unet = diffusers.UNet2DModel.from_config(network.config)
        unet.load_state_dict(current_names(network.state))
        save_pipeline(out, unet, network.noise, None)
    if network.scheduler is not None:
        save_settings(network.scheduler, out / SCHEDULER)
