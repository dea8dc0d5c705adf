"""Eight epochs of a LoRA, two planted with a fault: does `ddim lora score` find which to ship?

    python -m benchmarks.lora_epochs FOLDER

Trains, on the embedded base and on its second style (OpenMoji of every second subject), one LoRA of
six kept epochs, and puts two others in their places: epoch 4 is one from the same pictures under
shuffled captions, epoch 8 one that has learnt eight of the pictures by heart. All eight are written
as sd-scripts names and lays out its files. Then `ddim lora score` is run as a user would, and what
it says is printed with the seconds that it took.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ddim_core.lora.data import Captioned, read_captioned
from ddim_core.lora.export import save_kohya
from ddim_core.lora.latents import encode_latents
from ddim_core.lora.specs import LatentSpec, LoraExecution, LoraSpec
from ddim_core.lora.texts import distinct_prompts, embed_prompts
from ddim_core.lora.training.batches import TrainingImages
from ddim_core.lora.training.loop import start, train
from ddim_core.lora.training.loss import Prompts
from ddim_core.text2image.base_folder import size_step
from ddim_core.text2image.scenes import BACKGROUNDS, Scene, draw, held_out_subjects, style_scenes
from flows.requests.lora import STYLE_RECIPE
from tasks.text2image.embedded import embedded_base

SIDE = 16  # pixels of the embedded base
N_EPOCHS, SHUFFLED, BY_HEART, N_BY_HEART = 8, 4, 8, 8
EVERY = 35  # steps an epoch: the seventh is at 245
RECIPE = replace(STYLE_RECIPE, steps=EVERY * (N_EPOCHS - 1), schedule="constant",
                 checkpoint_every=EVERY)  # fmt: skip


def pictures(folder: Path) -> list[Captioned]:
    """Writes the style as a captioned folder, as a user has one; returns its pictures."""
    folder.mkdir(parents=True)
    lines = []
    for i, scene in enumerate(style_scenes()):
        Image.fromarray(draw(scene, SIDE)).save(folder / f"{i:03d}.png")
        lines.append(json.dumps({"file_name": f"{i:03d}.png", "text": scene.caption()}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return read_captioned(folder)


def held_out(folder: Path) -> None:
    """Writes pictures of the same style that no LoRA here is trained on."""
    folder.mkdir(parents=True)
    colours = list(BACKGROUNDS)
    for i, subject in enumerate(held_out_subjects()):
        for shift in (0, 4):
            scene = Scene(subject, colours[(i + shift) % len(colours)], "openmoji")
            Image.fromarray(draw(scene, SIDE)).save(folder / f"{subject}-{shift}.png")


def prompts() -> list[str]:
    """Subjects that no LoRA here is trained on, the backgrounds in turn."""
    colours = list(BACKGROUNDS)
    return [
        Scene(subject, colours[i % len(colours)]).caption()
        for i, subject in enumerate(held_out_subjects())
    ]


def trained(
    items: list[Captioned], captions: list[str], spec: LoraSpec, place: str
) -> Iterator[int]:
    """Trains a LoRA, writes its kept steps to `place`, a pattern, and yields their numbers."""
    torch.set_num_threads(1)
    base = embedded_base()
    texts = distinct_prompts(captions)
    latents = encode_latents(base, items, LatentSpec(resolution=SIDE), size_step(base))
    images = TrainingImages.from_arrays(latents, captions, texts)
    state = start(spec, base, LoraExecution(threads=1))
    for record in train(spec, state, Prompts.from_arrays(embed_prompts(base, texts)), images):
        if record.step % spec.checkpoint_every == 0:
            number = record.step // spec.checkpoint_every
            save_kohya(Path(place.format(number)), state.unet, state.encoders, spec, "style")
            yield number


def plant(folder: Path, recipe: LoraSpec = RECIPE) -> None:
    """Writes eight epochs with two faults, the pictures, others of the style, and prompts."""
    items = pictures(folder / "images")
    held_out(folder / "held-out")
    (folder / "prompts.txt").write_text("\n".join(prompts()) + "\n")
    captions = [item.caption for item in items]
    place = str(folder / "epochs" / "style-{:06d}.safetensors")
    for number in trained(items, captions, recipe, place):
        print(f"epoch {number}", flush=True)
    shuffled = list(np.random.default_rng(0).permutation(captions))
    once = replace(recipe, steps=SHUFFLED * EVERY, checkpoint_every=SHUFFLED * EVERY)
    list(trained(items, shuffled, once, place.replace("{:06d}", f"{SHUFFLED:06d}")))
    long = replace(recipe, steps=BY_HEART * EVERY, checkpoint_every=BY_HEART * EVERY)
    few, words = items[:: len(items) // N_BY_HEART], captions[:: len(items) // N_BY_HEART]
    list(trained(few, words, long, place.replace("{:06d}", f"{BY_HEART:06d}")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if not folder.exists():
        plant(folder)
    began = time.perf_counter()
    asked = [
        "lora", "score", str(folder / "epochs"), "--prompts", str(folder / "prompts.txt"),
        "--style-images", str(folder / "images"), "--held-out-images", str(folder / "held-out"),
        "--scales", "0.5,0.75,1",
    ]  # fmt: skip
    subprocess.run([sys.executable, "-m", "flows.cli.entry", *asked], check=True)
    print(f"{time.perf_counter() - began:.0f} seconds")


if __name__ == "__main__":
    main()
