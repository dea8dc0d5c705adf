"""Reads LoRA files in a fresh process, as another program would.

`python -m ddim_core.lora.reload` is that process. What comes out, weights and a picture, is
compared with what was trained.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ddim_core.common.late import late
from ddim_core.lora.export import DORA, KOHYA_NAMES, KOHYA_PREFIXES, TEXT_LEVEL
from ddim_core.lora.pipeline import portrait
from ddim_core.lora.specs import PictureSpec
from ddim_core.text2image.base_folder import load_pipeline
from ddim_core.text2image.families import family_of_pipeline

if TYPE_CHECKING:
    import peft
else:
    peft = late("peft")

PROJECT = Path(__file__).parents[2]


def reload_apart(
    base: Path, files: Sequence[Path], prompt: str, spec: PictureSpec
) -> list[dict[str, Tensor]]:
    """Starts a Python that, for each LoRA file, opens the base, loads the file, and reports its
    weights and one picture, under the name `picture`.

    Raises:
        RuntimeError: If it fails; the message is the end of what that Python said.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "ddim_core.lora.reload", str(base.absolute()), folder,
            *(str(file.absolute()) for file in files), "--prompt", prompt,
            "--steps", str(spec.steps), "--guidance", str(spec.guidance),
            "--resolution", str(spec.resolution), "--seed", str(spec.seed),
            "--threads", str(torch.get_num_threads()),
        ]  # fmt: skip
        done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
        outs = [_out(Path(folder), place) for place in range(len(files))]
        if done.returncode:
            failed = next((f for f, out in zip(files, outs, strict=True) if not out.exists()), base)
            raise RuntimeError(f"{failed.name} cannot be loaded: {done.stderr.strip()[-500:]}")
        return [load_file(out) for out in outs]


def _out(folder: Path, place: int) -> Path:
    return folder / f"reloaded-{place}.safetensors"


def load_file_into(pipeline: Any, file: Path) -> None:
    """Loads a LoRA file of either layout, by diffusers where it can.

    diffusers leaves DoRA's lengths out of a file in kohya's layout; such a file is read here as
    ComfyUI and LyCORIS read it.
    """
    weights = load_file(file)
    if any(name.endswith(".dora_scale") for name in weights):
        _load_kohya(pipeline, weights)
    else:
        pipeline.load_lora_weights(file.parent, weight_name=file.name)


def _load_kohya(pipeline: Any, weights: dict[str, Tensor]) -> None:
    for part, prefix in KOHYA_PREFIXES[family_of_pipeline(pipeline).pipeline].items():
        module = getattr(pipeline, part)
        level = "" if part == "unet" or hasattr(module, "text_model") else TEXT_LEVEL
        places = {
            f"{prefix}_{(level + name).replace('.', '_')}": name
            for name, _ in module.named_modules()
        }
        mine = {place: places[place] for w in weights if (place := w.split(".")[0]) in places}
        if not mine:
            continue
        first = next(iter(mine))
        config = peft.LoraConfig(
            r=len(weights[f"{first}.lora_down.weight"]),
            lora_alpha=float(weights[f"{first}.alpha"]),  # type: ignore[arg-type]
            target_modules=list(mine.values()),
            use_dora=f"{first}.dora_scale" in weights,
        )
        module.add_adapter(config, "default")
        for name, parameter in module.named_parameters():
            if ".lora_" in name:
                layer, ours = name.replace(".default", "").split(".lora_")
                place = next(place for place, there in mine.items() if there == layer)
                tensor = weights[f"{place}.{KOHYA_NAMES[ours.replace(f'{DORA}.weight', DORA)]}"]
                parameter.data = tensor.reshape(parameter.shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("base", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--prompt", required=True)
    for name in ("steps", "resolution", "seed", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--guidance", type=float, required=True)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    spec = PictureSpec(given.steps, given.guidance, given.resolution, given.seed)
    for place, file in enumerate(given.files):
        pipeline = load_pipeline(given.base)
        load_file_into(pipeline, file)
        save_file(portrait(pipeline, given.prompt, spec), _out(given.out, place))
        del pipeline  # a large base does not fit into memory twice


if __name__ == "__main__":
    main()
