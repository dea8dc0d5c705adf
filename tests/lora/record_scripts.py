"""Records the losses of diffusers' own LoRA scripts, and every random number that they drew.

    python tests/lora/record_scripts.py FOLDER_OF_DIFFUSERS COMMIT [CASE...]

runs the unchanged scripts of that clone, each in a process of its own, on the tiny bases and data
of this folder, and writes tests/golden/lora_scripts.npz; of cases that are named, those alone.
Nothing but observers is added: losses are what the scripts hand to `Accelerator.log`.
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

# Where the scripts lie, by the beginnings of their names.
PLACES = {
    "train_text_to_image": "examples/text_to_image",
    "train_dreambooth": "examples/dreambooth",
}


def arguments(case: str) -> list[str]:
    """The script's command line, in a folder that holds `base` and the data."""
    shared = [
        "--pretrained_model_name_or_path", "base", "--resolution", str(RESOLUTION),
        "--center_crop", "--train_batch_size", "2", "--max_train_steps", str(STEPS),
        "--learning_rate", str(RATE), "--rank", "4", "--seed", "1", "--mixed_precision", "no",
        "--output_dir", "out", "--checkpointing_steps", "1000",
    ]  # fmt: skip
    asked = CASES[case]
    own = ["--train_data_dir", "captioned"]
    if "dreambooth" in asked.script:
        own = ["--instance_prompt", INSTANCE_PROMPT]
        own += (
            ["--dataset_name", "captioned", "--caption_column", "text"]
            if asked.data == ("captioned",)
            else ["--instance_data_dir", "instance"]
        )
    if "class" in asked.data:
        own += [
            "--class_data_dir", "class", "--class_prompt", CLASS_PROMPT, "--num_class_images", "6",
        ]  # fmt: skip
    if asked.n_tokens:
        own += ["--max_sequence_length", str(asked.n_tokens)]
    return [*shared, *own, *asked.options]


def observe() -> dict[str, list[Any]]:
    """Puts observers in place; returns the lists that they fill."""
    import diffusers.models.autoencoders.vae as vae_module
    import diffusers.training_utils as training_utils
    import torch
    from accelerate import Accelerator
    from diffusers import (
        AutoencoderKL,
        FluxTransformer2DModel,
        SD3Transformer2DModel,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    seen: dict[str, list[Any]] = {
        k: []
        for k in ("loss", "pixels", "latent_noise", "noise", "offset", "timesteps", "u", "weights")
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
    watch(training_utils, "compute_density_for_timestep_sampling", "u")
    watch(vae_module, "randn_tensor", "latent_noise")
    watch(AutoencoderKL, "encode", "pixels", of_input=True)
    networks = {
        UNet2DConditionModel: ["unet"],
        SD3Transformer2DModel: ["transformer"],
        FluxTransformer2DModel: ["transformer"],
    }
    encoders = ["text_encoder", "text_encoder_2"]  # in the order in which they are given a LoRA
    for kind, parts in {**networks, CLIPTextModel: encoders,
                        CLIPTextModelWithProjection: encoders}.items():  # fmt: skip
        _watch_adapter(kind, parts, seen["weights"])
    original_log = Accelerator.log

    def log(self: Any, values: dict[str, float], **kwargs: Any) -> None:
        seen["loss"].append(values.get("train_loss", values.get("loss")))
        original_log(self, values, **kwargs)

    Accelerator.log = log
    return seen


def _watch_adapter(kind: Any, parts: list[str], weights: list[Any]) -> None:
    original = kind.add_adapter

    def add_adapter(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        part = parts.pop(0)
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                plain = name.replace(".default", "")
                weights.append((f"{part}.{plain}", parameter.detach().clone().numpy()))

    kind.add_adapter = add_adapter


def rows_of(pixels: np.ndarray, folders: tuple[str, ...], way: str) -> list[tuple[int, int]]:
    """Which image, and whether mirrored, each of a batch's is, by its exact pixels."""
    from PIL import Image
    from torchvision import transforms

    prepare = transforms.Compose(
        [
            transforms.Resize(RESOLUTION, transforms.InterpolationMode[way]),
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
    way = "BILINEAR" if CASES[case].n_tokens else "LANCZOS"
    rows = [rows_of(pixels, CASES[case].data, way) for pixels in seen["pixels"]]
    arrays = {
        "loss": np.array(seen["loss"], dtype=np.float64),
        "rows": np.array([[row for row, _ in batch] for batch in rows]),
        "mirrored": np.array([[mirrored for _, mirrored in batch] for batch in rows]),
        **{k: np.stack(seen[k]) for k in ("latent_noise", "noise")},
        **{f"weights/{name}": value for name, value in seen["weights"]},
    }
    arrays |= {k: np.stack(seen[k]) for k in ("offset", "timesteps", "u") if seen[k]}
    assert len(arrays["loss"]) == STEPS, len(arrays["loss"])
    np.savez(f"{case}.npz", **arrays)


def main() -> None:
    import diffusers
    import torch

    repository, commit, *named = Path(sys.argv[1]), *sys.argv[2:]
    everything: dict[str, Any] = {}
    about = {"diffusers": diffusers.__version__, "torch": torch.__version__, "scripts": commit}
    if named:
        with np.load(GOLDEN) as arrays:
            everything = {key: arrays[key] for key in arrays.files if key != "about"}
            about = json.loads(str(arrays["about"])) | about
    for name, case in CASES.items():
        if named and name not in named:
            continue
        place = next(p for begin, p in PLACES.items() if case.script.startswith(begin))
        script = repository / place / case.script
        with tempfile.TemporaryDirectory() as folder:
            case.base(Path(folder, "base"))
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
