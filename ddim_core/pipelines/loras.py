"""LoRA files laid over a pipeline, by diffusers' own loader: its layout, kohya's, and others'."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from diffusers.utils import logging

from ddim_core.networks.building import LOADING
from ddim_core.pipelines.opening import OpenedPipeline
from ddim_core.safe_files.safe_load import first_line

WEIGHTS = "lora.safetensors"


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
    for i, (name, file) in enumerate(zip(names, files, strict=True)):
        before = logging.get_verbosity()
        logging.set_verbosity_error()
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
            raise ValueError(
                f"LoRA {i + 1} cannot be laid over the {opened.name}: {first_line(error)}"
            ) from error
        finally:
            logging.set_verbosity(before)
        if name not in {n for part in pipeline.get_list_adapters().values() for n in part}:
            raise ValueError(f"LoRA {i + 1} holds nothing for the {opened.name}'s networks")
    pipeline.set_adapters(names, list(scales))
    for part in pipeline.components.values():
        if hasattr(part, "requires_grad_"):
            part.eval().requires_grad_(False)
