"""One `.safetensors` file that holds a whole Stable Diffusion model, beside its configurations."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from ddim_core.common.foreign import Keywords
from ddim_core.common.plain_files import is_there
from ddim_core.networks.building import LOADING
from ddim_core.pipelines.parts import PICKLES, PipelineParts, described_parts
from ddim_core.safe_files.claims.tensor_headers import tensors_in
from ddim_core.safe_files.safe_load import first_line

UNET, AVERAGE = "model.diffusion_model.", "model_ema."
PREFIXES = {
    "unet": (UNET,),
    "vae": ("first_stage_model.", "vae."),
    "text encoder": ("cond_stage_model.", "conditioner.embedders."),
}
KINDS = {
    "StableDiffusionPipeline": "cond_stage_model.",
    "StableDiffusionXLPipeline": "conditioner.embedders.1.",
}
"""What can be opened, each with what the names of its text encoder begin with."""
OTHERS = {
    "joint_blocks.": "Stable Diffusion 3",
    "double_blocks.": "Flux or another of its kind",
    "conditioner.embedders.0.model.": "the refiner of SDXL",
    "control_model.": "a ControlNet",
    "lora_": "a LoRA (--lora lays it over a pipeline)",
    "model.diffusion_model.": "a U-Net of Stable Diffusion without all of its encoders",
    "down_blocks.": "one network of a diffusers folder",
}
"""What else lies in such files, by what stands in their names."""
N_SHOWN = 3


def is_single_file(place: Path) -> bool:
    """Tells a `.safetensors` file that holds all networks of a Stable Diffusion model."""
    if place.suffix != ".safetensors" or not is_there(place):
        return False
    try:
        names = _names(place)
    except ValueError:  # whoever opens it says why
        return False
    return not _missing(names)


def holds_average(file: Path) -> bool:
    """Tells whether a single file holds a moving average of its U-Net beside it."""
    return any(name.startswith(AVERAGE) for name in _names(file))


def write_average(file: Path, out: Path) -> None:
    """Writes a single file again, with the moving average of its U-Net in the U-Net's place.

    The original code names the average of `model.diffusion_model.out.0.bias`
    `model_ema.diffusion_modelout0bias`: without its points.

    Raises:
        ValueError: If the average is not one of this U-Net.
    """
    kept: dict[str, torch.Tensor] = {}
    with tensors_in(file) as weights:
        names = list(weights.keys())
        averages = {_pointless(n, AVERAGE): n for n in names if n.startswith(AVERAGE)}
        lacking = []
        for name in names:
            if name.startswith(AVERAGE):
                continue
            taken = name
            if name.startswith(UNET):
                taken = averages.get(_pointless(name, "model."), "")
                if not taken:
                    lacking.append(name)
                    continue
            kept[name] = weights.get_tensor(taken)
            there = weights.get_slice(name).get_shape()
            if list(kept[name].shape) != there:
                lacking.append(name)
    if lacking:
        raise ValueError(
            f"{file.name} holds a moving average ({AVERAGE}) without {len(lacking)} of its U-Net's "
            f"weights, the first of them {lacking[0]}; take those beside it with --weights raw"
        )
    save_file(kept, out)


def _pointless(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).replace(".", "")


def load_single_file(
    file: Path, configuration: Path | None, dtype: torch.dtype
) -> tuple[Any, PipelineParts]:
    """Opens a single file by diffusers' `from_single_file`, with configurations that lie here.

    Raises:
        ValueError: If it is no safetensors file, there is no folder of configurations, this is not
            of SD 1.x, 2.x or SDXL, or the file does not hold what it describes.
    """
    if not is_there(file):
        raise ValueError(f"there is no pipeline {str(file)!r}; give a folder or a single file")
    if file.suffix != ".safetensors":
        raise ValueError(f"{file.name} is no .safetensors file; a single file must be one")
    if configuration is None:
        raise ValueError(
            f"{file.name} is a single file, which does not say what it is of; give beside it, as "
            "its configuration, the folder (or on the command line the hub id) of a pipeline of "
            "its kind, such as the one that it was trained from"
        )
    found = kind_of(file)
    _require_no_pickles(configuration)
    parts = described_parts(configuration)
    name = parts.kind.__name__
    if name != found:
        raise ValueError(
            f"{file.name} is of a {found}, and its configuration {configuration.name} of a {name}; "
            "give one of the same kind"
        )
    known = inspect.signature(parts.kind.__init__).parameters
    given: Keywords = {n: None for n in parts.absent if n in known}
    if "requires_safety_checker" in known:
        given["requires_safety_checker"] = False
    try:
        with LOADING, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipeline = parts.kind.from_single_file(
                str(file), config=str(configuration), local_files_only=True, dtype=dtype, **given
            )
    except Exception as error:  # other people's files can be wrong in every way
        raise ValueError(
            f"{file.name} cannot be opened as a {name} of {configuration.name}'s configuration: "
            f"{first_line(error)}"
        ) from error
    return pipeline, parts


def kind_of(file: Path) -> str:
    """Returns the class of the pipeline that a single file is of.

    All networks must lie in it: diffusers would take those that are missing from the folder of
    configurations.

    Raises:
        ValueError: If it is no safetensors file, or is of neither SD 1.x, 2.x nor SDXL: what was
            found is said.
    """
    names = _names(file)
    missing = _missing(names)
    for kind, prefix in KINDS.items():
        if not missing and any(name.startswith(prefix) for name in names):
            return kind
    known = next((what for mark, what in OTHERS.items() if any(mark in n for n in names)), "")
    shown = f"{known}: " if known else ""
    shown += ", ".join(names[:N_SHOWN]) or "nothing"
    raise ValueError(
        f"{file.name} is no single file of Stable Diffusion 1.x, 2.x or SDXL; it holds {shown}"
        + (f", and {', '.join(missing)}" if missing else "")
    )


def _missing(names: Sequence[str]) -> list[str]:
    return [
        f"no {part} ({' or '.join(prefixes)})"
        for part, prefixes in PREFIXES.items()
        if not any(name.startswith(prefixes) for name in names)
    ]


def _names(file: Path) -> list[str]:
    try:
        with tensors_in(file) as weights:
            return sorted(weights.keys())
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file.name} is no safetensors file: {first_line(error)}") from error


def _require_no_pickles(configuration: Path) -> None:
    for path in sorted(configuration.rglob("*")):
        if path.suffix in PICKLES:
            raise ValueError(
                f"{configuration.name} holds a pickle, {path.name}, which can run code when it is "
                "read; a configuration needs no weights: leave it out"
            )
