"""Reads a LoRA file in a fresh process, as another program would: `python -m ddim_core.lora_reload`.

What comes out, weights and a picture, is compared with what was trained.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from ddim_core.lora_base import load_pipeline
from ddim_core.lora_export import adapter_weights
from ddim_core.lora_specs import PictureSpec
from ddim_core.pictures import pictures

PROJECT = Path(__file__).parents[1]
PICTURE = "picture"


def reload_apart(base: Path, file: Path, prompt: str, spec: PictureSpec) -> dict[str, Tensor]:
    """Starts a Python that opens the base, loads the LoRA file, and reports its weights and one
    picture, under the name `picture`.

    Raises:
        ValueError: If it fails; the message is the end of what that Python said.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "reloaded.safetensors")
        command = [
            sys.executable, "-m", "ddim_core.lora_reload", str(base.absolute()),
            str(file.absolute()), str(out), "--prompt", prompt, "--steps", str(spec.steps),
            "--guidance", str(spec.guidance), "--resolution", str(spec.resolution),
            "--seed", str(spec.seed), "--threads", str(torch.get_num_threads()),
        ]  # fmt: skip
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(f"{file.name} cannot be loaded: {done.stderr.strip()[-500:]}")
        return load_file(out)


def report(pipeline: Any, prompt: str, spec: PictureSpec) -> dict[str, Tensor]:
    """Returns the LoRA that a pipeline carries, and a picture that it draws."""
    encoders = [pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None)]
    found = adapter_weights(pipeline.unet, [e for e in encoders if e is not None])
    return found | {PICTURE: torch.from_numpy(draw(pipeline, [prompt], spec)[0])}


def draw(pipeline: Any, prompts: list[str], spec: PictureSpec) -> NDArray[np.uint8]:
    """Returns one picture a prompt, uint8 [n, height, width, 3], all from the spec's seed."""
    seeds = [spec.seed] * len(prompts)
    return pictures(pipeline, prompts, seeds, spec.steps, spec.guidance, spec.resolution)


def load_file_into(pipeline: Any, file: Path) -> None:
    """Loads a LoRA file of either layout, as diffusers does.

    DoRA's lengths in kohya's layout have the shape [out, 1, ...], which diffusers does not undo.
    """
    weights = load_file(file)
    if not any(name.endswith(".dora_scale") for name in weights):
        pipeline.load_lora_weights(file.parent, weight_name=file.name)
        return
    for name, tensor in weights.items():
        if name.endswith(".dora_scale"):
            flat = tensor.ndim == 2
            weights[name] = tensor.flatten() if flat else tensor.reshape(1, -1, 1, 1)
    pipeline.load_lora_weights(weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("base", "file", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--prompt", required=True)
    for name in ("steps", "resolution", "seed", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--guidance", type=float, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    pipeline = load_pipeline(given.base)
    load_file_into(pipeline, given.file)
    spec = PictureSpec(given.steps, given.guidance, given.resolution, given.seed)
    save_file(report(pipeline, given.prompt, spec), given.out)


if __name__ == "__main__":
    main()
