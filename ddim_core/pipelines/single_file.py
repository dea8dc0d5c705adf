"""One `.safetensors` file that holds a whole Stable Diffusion model, beside its configurations."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

import torch

from ddim_core.common.plain_files import is_there
from ddim_core.networks.building import LOADING
from ddim_core.pipelines.parts import PipelineParts, described_parts
from ddim_core.safe_files.safe_load import first_line

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
