"""The dozen lines of plain diffusers that draw with a setting, with seeds of production's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddim_core.shipping.script import CONDITIONS, Asked, BareNetwork, interval_lines

N_SHOWN = 4  # images that the lines draw
TOLD = "told["  # where a line takes what prompts are encoded to


@dataclass(frozen=True)
class PlainCall:
    """A pipeline's own call, as the lines make it.

    Attributes:
        folder: The pipeline's.
        pipeline, scheduler: Their classes; the scheduler's configuration lies beside the lines.
        absent: Parts that are not there and that the class wants to be told so.
        call: The arguments that are the same for all images.
        own_steps: A list of timesteps or sigmas that the call itself does not take; else empty.
        eta: What the scheduler's step has to be given, since the call takes none; else 0.
        dtype: Number format of the networks.
        told: The arguments that say what is drawn, as code.
        loras: Files beside the lines that are laid over its networks, and how much of each counts.
        guided: At which of its steps there is guidance; empty for all.
        asked: How it asks for guidance, where that is left out at some steps.
    """

    folder: str
    pipeline: str
    scheduler: str
    absent: tuple[str, ...]
    call: Mapping[str, Any]
    own_steps: Mapping[str, Any]
    eta: float
    dtype: str
    told: Mapping[str, str]
    loras: tuple[tuple[str, float], ...] = ()
    guided: tuple[bool, ...] = ()
    asked: Asked | None = None


def pipeline_snippet(plain: PlainCall) -> str:
    """Returns the lines for a pipeline's own call."""
    lines = ["import copy"] if plain.asked else []
    lines += ["import functools"] if plain.asked or plain.eta or plain.own_steps else []
    lines += ["import inspect", "import itertools"] if plain.asked else []
    lines += ["import numpy as np"] if "sigmas" in plain.own_steps else []
    lines += ["import torch", f"from diffusers import {plain.pipeline}, {plain.scheduler}"]
    encoded = any(TOLD in value for value in plain.told.values())
    lines += ["from safetensors.torch import load_file"] if encoded else []
    # Older versions know torch_dtype alone, and newer ones still take it.
    more = [] if plain.dtype == "float32" else [f"torch_dtype=torch.{plain.dtype}"]
    opened = ", ".join([repr(plain.folder), *more, *(f"{name}=None" for name in plain.absent)])
    lines += ["", *interval_lines(plain.guided, plain.asked)] if plain.asked else [""]
    lines += [
        f"pipe = {plain.pipeline}.from_pretrained({opened})",
        f'pipe.scheduler = {plain.scheduler}.from_pretrained(".")  # scheduler_config.json here',
    ]
    lines += _laid_over(plain.loras)
    lines += ["guide_at_some_steps(pipe)"] if plain.asked else []
    if plain.own_steps:
        lines += [
            "set_steps = pipe.scheduler.set_timesteps",
            "@functools.wraps(set_steps)  # calls look at what it takes, and hand it their own",
            "def own_steps(*steps, **told):",
            '    kept = {name: told[name] for name in ("device", "mu") if name in told}',
            f"    set_steps({_arguments(plain.own_steps)}, **kept)",
            "pipe.scheduler.set_timesteps = own_steps",
        ]
    if plain.eta:
        lines += [
            f"pipe.scheduler.step = functools.partial(pipe.scheduler.step, eta={plain.eta!r})"
        ]
    lines += [f'told = load_file("{CONDITIONS}")'] if encoded else []
    lines += ["images = pipe("]
    lines += [f"    {name}={value}," for name, value in plain.told.items()]
    lines += [f"    {name}={value!r}," for name, value in plain.call.items()]
    lines += ["    generator=torch.Generator().manual_seed(0),  # a seed of your own", ").images"]
    return "\n".join(lines)


def _laid_over(loras: Sequence[tuple[str, float]]) -> list[str]:
    """The lines that lay LoRA files over a pipeline, each under a name of its own."""
    names = [f"lora_{i}" for i in range(len(loras))]
    lines = [
        f'pipe.load_lora_weights(".", weight_name={file!r}, adapter_name={name!r})'
        for name, (file, _) in zip(names, loras, strict=True)
    ]
    return [*lines, f"pipe.set_adapters({names}, {[s for _, s in loras]})"] if loras else []


def network_snippet(
    folder: str,
    network: BareNetwork,
    scheduler: str,
    set_steps: Mapping[str, Any],
    eta: float,
    takes_generator: bool,
    shape: tuple[int, ...],
) -> str:
    """Returns the lines for a bare network: the loop that diffusers' pipelines have.

    Args:
        folder: The checkpoint's.
        network: What is asked.
        scheduler: Its class; the configuration lies beside the lines.
        set_steps: What `set_timesteps` is given.
        eta: What its step is given; 0 for none.
        takes_generator: Whether its step takes a generator.
        shape: Of one image's noise.
    """
    subfolder = "" if network.network == "." else f', subfolder="{network.network}"'
    names = [network.network_class, *filter(None, [network.decoder_class]), scheduler]
    labelled = network.n_classes > 0
    lines = [
        *(["import numpy as np"] if "sigmas" in set_steps else []),
        "import torch",
        f"from diffusers import {', '.join(names)}",
        "",
        f"unet = {network.network_class}.from_pretrained({folder!r}{subfolder}).eval()",
        f'scheduler = {scheduler}.from_pretrained(".")  # scheduler_config.json beside this',
        f"scheduler.set_timesteps({_arguments(set_steps)})",
        "generator = torch.Generator().manual_seed(0)  # a seed of your own",
        f"x = torch.randn({N_SHOWN}, {', '.join(map(str, shape))}, generator=generator)",
        'x = x * getattr(scheduler, "init_noise_sigma", 1.0)',
    ]
    if labelled:
        lines += [f"classes = torch.tensor({[k % network.n_classes for k in range(N_SHOWN)]})"]
    step = ["generator=generator"] * takes_generator + [f"eta={eta!r}"] * (eta != 0.0)
    more = "".join(f", {argument}" for argument in step)
    loop = "for t in scheduler.timesteps"
    if network.guided:
        lines += [f"guided = {network.guided}  # at which calls there is guidance"]
        loop = "for t, guides in zip(scheduler.timesteps, guided)"
    lines += ["with torch.inference_mode():", f"    {loop}:"]
    lines += [f"        {line}" for line in _asked(network)]
    lines += [f"        x = scheduler.step(said, t, x{more}).prev_sample"]
    if network.decoder:
        lines += [
            f"    decoder = {network.decoder_class}.from_pretrained({folder!r}, "
            f'subfolder="{network.decoder}")',
            "    x = decoder.decode(x / decoder.config.scaling_factor).sample",
        ]
    return "\n".join([*lines, "images = (x / 2 + 0.5).clamp(0, 1)"])


def _asked(network: BareNetwork) -> list[str]:
    """The lines that ask the network, guided where it is."""
    scaled = "scheduler.scale_model_input(x, t)"
    if not network.n_classes:
        return [f"said = unet({scaled}, t).sample"]
    null = f"torch.full_like(classes, {network.null_label})"
    if network.guidance == 1.0 or (network.guidance == 0.0 and not network.guided):
        labels = "classes" if network.guidance == 1.0 else null
        return [f"said = unet({scaled}, t, class_labels={labels}).sample"]
    led = [
        f"free = unet({scaled}, t, class_labels={null}).sample",
        f"said = free + {network.guidance!r} * (said - free)",
    ]
    led = ["if guides:", *(f"    {line}" for line in led)] if network.guided else led
    return [f"said = unet({scaled}, t, class_labels=classes).sample", *led]


def _arguments(given: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_taken(name, value)}" for name, value in given.items())


def _taken(name: str, value: Any) -> str:
    """Some schedulers take sigmas as an array alone."""
    return f"np.array({value!r})" if name == "sigmas" else repr(value)
