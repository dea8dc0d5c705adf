"""LoRA files laid over a pipeline, by diffusers' own loader: its layout, kohya's, and others'."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from logging import CRITICAL
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch

from ddim_core.common.late import late
from ddim_core.networks.building import LOADING
from ddim_core.pipelines.opening import OpenedPipeline
from ddim_core.safe_files.safe_load import first_line

if TYPE_CHECKING:
    import diffusers
else:
    diffusers = late("diffusers")

WEIGHTS = "lora.safetensors"
LONGEST_REASON = 300  # characters


def lay_over(opened: OpenedPipeline, files: Sequence[bytes], scales: Sequence[float]) -> None:
    """Lays LoRAs over a pipeline, in place.

    Args:
        opened: The pipeline.
        files: Bytes of .safetensors files.
        scales: How much of each counts.

    Raises:
        ValueError: If the pipeline takes no LoRAs, or a file does not fit its networks.
    """
    pipeline, names = opened.pipeline, [f"lora_{i}" for i in range(len(files))]
    if not hasattr(pipeline, "load_lora_weights"):
        raise ValueError(f"{opened.name} takes no LoRAs")
    logging = diffusers.utils.logging
    for i, (name, file) in enumerate(zip(names, files, strict=True)):
        before = logging.get_verbosity()
        logging.set_verbosity(CRITICAL)  # what matters is raised
        try:
            with LOADING, warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
                warnings.simplefilter("ignore")
                Path(folder, WEIGHTS).write_bytes(file)
                # A file and not its tensors: its metadata have alpha, and what else scales.
                pipeline.load_lora_weights(
                    folder, weight_name=WEIGHTS, adapter_name=name, local_files_only=True,
                    use_safetensors=True,
                )  # fmt: skip
        except Exception as error:  # other people's files can be wrong in every way
            said = [line.strip() for line in str(error).splitlines() if "mismatch" in line]
            reason = (said or [first_line(error)])[0][:LONGEST_REASON]
            raise ValueError(
                f"LoRA {i + 1} cannot be laid over the {opened.name}: {reason}"
            ) from error
        finally:
            logging.set_verbosity(before)
        if name not in {n for part in pipeline.get_list_adapters().values() for n in part}:
            raise ValueError(f"LoRA {i + 1} holds nothing for the {opened.name}'s networks")
        _require_whole(opened, name, file, i + 1)
    pipeline.set_adapters(names, list(scales))
    for part in pipeline.components.values():
        if hasattr(part, "requires_grad_"):
            part.eval().requires_grad_(False)


def _require_whole(opened: OpenedPipeline, name: str, file: bytes, number: int) -> None:
    """Makes sure that every layer of a LoRA found its place: diffusers leaves out what does not
    fit, and a LoRA for another base would be scored as if it were whole. (One layer of a file may
    become several in a network, never fewer.)"""
    told = safetensors.torch.load(file)
    held = sum(("lora_A" in key or "lora_down" in key or "lora.down" in key) for key in told)
    laid = sum(
        f"lora_A.{name}." in key
        for part in opened.pipeline.components.values()
        if isinstance(part, torch.nn.Module)
        for key, _ in part.named_parameters()
    )
    if laid < held:
        raise ValueError(
            f"LoRA {number} has {held} layers, and only {laid} of them have a place in the "
            f"{opened.name}; it belongs to another base"
        )
