"""Records the losses of diffusers' own LoRA scripts, and every random number that they drew.

    python tests/lora/record_scripts.py FOLDER_OF_DIFFUSERS COMMIT

runs the unchanged scripts of that clone, each in a process of its own, on the tiny base and data of
this folder, and writes tests/golden/lora_scripts.npz. Nothing but observers is added: losses are
what the scripts hand to `Accelerator.log`.
"""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
from tests.lora.parity import (  # noqa: E402 (after the path)
    CASES,
    CLASS_PROMPT,
    GOLDEN,
    INSTANCE_PROMPT,
    RATE,
    RESOLUTION,
    STEPS,
    write_data,
)
from tests.lora.tiny_base import write_tiny_base  # noqa: E402

PLACES = {
    "train_text_to_image_lora.py": "examples/text_to_image",
    "train_dreambooth_lora.py": "examples/dreambooth",
}


def arguments(case: str) -> list[str]:
    """The script's command line, in a folder that holds `base` and the data."""
    shared = [
        "--pretrained_model_name_or_path", "base", "--resolution", str(RESOLUTION),
        "--center_crop", "--train_batch_size", "2", "--max_train_steps", str(STEPS),
        "--learning_rate", str(RATE), "--rank", "4", "--seed", "1", "--mixed_precision", "no",
        "--output_dir", "out", "--checkpointing_steps", "1000",
    ]  # fmt: skip
    own = ["--train_data_dir", "captioned"]
    if CASES[case].script == "train_dreambooth_lora.py":
        own = [
            "--instance_data_dir", "instance", "--instance_prompt", INSTANCE_PROMPT,
            "--class_data_dir", "class", "--class_prompt", CLASS_PROMPT, "--num_class_images", "6",
        ]  # fmt: skip
    return [*shared, *own, *CASES[case].options]


def observe() -> dict[str, list[Any]]:
    """Puts observers in place; returns the lists that they fill."""
    import diffusers.models.autoencoders.vae as vae_module
    import torch
    from accelerate import Accelerator
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel

    seen: dict[str, list[Any]] = {
        k: [] for k in ("loss", "pixels", "latent_noise", "noise", "offset", "timesteps", "weights")
    }

    def watch(place: Any, name: str, key: str, wanted: Any = None, of_input: bool = False) -> None:
        original = getattr(place, name)

        def observer(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            value = args[1] if of_input else result
            if wanted is None or wanted(args):
                seen[key].append(value.detach().clone().numpy())
            return result

        setattr(place, name, observer)

    watch(torch, "randn_like", "noise")
    watch(torch, "randn", "offset", wanted=lambda a: isinstance(a[0], tuple) and a[0][2:] == (1, 1))
    watch(torch, "randint", "timesteps", wanted=lambda a: a[:2] == (0, 1000))
    watch(vae_module, "randn_tensor", "latent_noise")
    watch(AutoencoderKL, "encode", "pixels", of_input=True)
    for part, kind in (("unet", UNet2DConditionModel), ("text_encoder", CLIPTextModel)):
        _watch_adapter(kind, part, seen["weights"])
    original_log = Accelerator.log

    def log(self: Any, values: dict[str, float], **kwargs: Any) -> None:
        seen["loss"].append(values.get("train_loss", values.get("loss")))
        original_log(self, values, **kwargs)

    Accelerator.log = log
    return seen


def _watch_adapter(kind: Any, part: str, weights: list[Any]) -> None:
    original = kind.add_adapter

    def add_adapter(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                plain = name.replace(".default", "")
                weights.append((f"{part}.{plain}", parameter.detach().clone().numpy()))

    kind.add_adapter = add_adapter


def rows_of(pixels: np.ndarray, folders: list[str]) -> list[tuple[int, int]]:
    """Which image, and whether mirrored, each of a batch's is, by its exact pixels."""
    from PIL import Image
    from torchvision import transforms

    prepare = transforms.Compose(
        [
            transforms.Resize(RESOLUTION, transforms.InterpolationMode.LANCZOS),
            transforms.CenterCrop(RESOLUTION),
            transforms.ToTensor(),
            transforms.Normalize([0.5], [0.5]),
        ]
    )
    known = [
        [prepare(Image.open(path)).numpy() for path in sorted(Path(folder).glob("*.png"))]
        for folder in folders
    ]
    found = []
    for place, picture in enumerate(pixels):
        images = known[place * len(folders) // len(pixels)]
        found += [
            (row, mirrored)
            for row, image in enumerate(images)
            for mirrored, shown in enumerate((image, image[..., ::-1]))
            if np.array_equal(shown, picture)
        ]
    assert len(found) == len(pixels), "a picture is none of the data's, or two"
    return found


def record(case: str, script: Path) -> None:
    """Runs one script in this process and folder, and saves what was seen."""
    seen = observe()
    sys.argv = [script.name, *arguments(case)]
    runpy.run_path(str(script), run_name="__main__")
    folders = ["instance", "class"] if case == "dreambooth" else ["captioned"]
    rows = [rows_of(pixels, folders) for pixels in seen["pixels"]]
    arrays = {
        "loss": np.array(seen["loss"], dtype=np.float64),
        "rows": np.array([[row for row, _ in batch] for batch in rows]),
        "mirrored": np.array([[mirrored for _, mirrored in batch] for batch in rows]),
        **{k: np.stack(seen[k]) for k in ("latent_noise", "noise", "timesteps")},
        **{f"weights/{name}": value for name, value in seen["weights"]},
    }
    if seen["offset"]:
        arrays["offset"] = np.stack(seen["offset"])
    assert len(arrays["loss"]) == STEPS, len(arrays["loss"])
    np.savez(f"{case}.npz", **arrays)


def main() -> None:
    import diffusers
    import torch

    repository, commit = Path(sys.argv[1]), sys.argv[2]
    everything: dict[str, Any] = {}
    about = {"diffusers": diffusers.__version__, "torch": torch.__version__, "scripts": commit}
    for name, case in CASES.items():
        script = repository / PLACES[case.script] / case.script
        with tempfile.TemporaryDirectory() as folder:
            write_tiny_base(Path(folder, "base"), case.prediction_type)
            write_data(Path(folder))
            command = [sys.executable, __file__, "--one", name, str(script.absolute())]
            subprocess.run(command, cwd=folder, check=True)
            with np.load(Path(folder, f"{name}.npz")) as arrays:
                everything |= {f"{name}/{key}": arrays[key] for key in arrays.files}
        about[name] = " ".join([script.name, *arguments(name)])
    np.savez_compressed(GOLDEN, about=np.array(json.dumps(about, indent=1)), **everything)


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        record(sys.argv[2], Path(sys.argv[3]))
    else:
        main()
