"""One `.safetensors` file that holds a whole Stable Diffusion model, beside its configurations."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ddim_core.common.plain_files import is_there
from ddim_core.networks.building import LOADING
from ddim_core.pipelines.parts import PICKLES, PipelineParts, described_parts
from ddim_core.safe_files.safe_load import first_line

PREFIXES = {
    "unet": ("model.diffusion_model.",),
    "vae": ("first_stage_model.", "vae."),
    "text encoder": ("cond_stage_model.", "conditioner.embedders."),
}
KINDS = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")


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
            f"{file.name} is a single file, which does not say what it is of; give beside it a "
            "pipeline's folder, as its configuration"
        )
    parts = described_parts(configuration)
    _require_held(file, configuration)
    name = parts.kind.__name__
    if name not in KINDS:
        raise ValueError(f"{configuration.name} is of a {name}; a single file is of {KINDS}")
    known = inspect.signature(parts.kind.__init__).parameters
    given: dict[str, Any] = {n: None for n in parts.absent if n in known}
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


def _require_held(file: Path, configuration: Path) -> None:
    """Makes sure that a file holds all networks: diffusers would take those that are missing from
    the folder of configurations, pickles too."""
    for path in sorted(configuration.rglob("*")):
        if path.suffix in PICKLES:
            raise ValueError(
                f"{configuration.name} holds a pickle, {path.name}, which can run code when it is "
                "read; a configuration needs no weights: leave it out"
            )
    try:
        with safe_open(file, "pt") as weights:
            names = list(weights.keys())
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file.name} is no safetensors file: {first_line(error)}") from error
    for part, prefixes in PREFIXES.items():
        if not any(name.startswith(prefixes) for name in names):
            raise ValueError(
                f"{file.name} holds no {part} ({' or '.join(prefixes)}); a single file must hold "
                "the whole of a Stable Diffusion model"
            )
