"""Eight epochs of a LoRA, two planted with a fault: does `ddim lora score` find which to ship?

    python -m benchmarks.lora_epochs FOLDER

Trains, on the embedded base and on five views of the embedded subject, one LoRA of seven kept
epochs, and puts two others in: epoch 4 is one from the same views under shuffled captions, epoch 8
one of all layers that was trained until it knows the views by heart. All eight are written as
sd-scripts names and lays out its files. Then `ddim lora score` is run as a user would, and what it
says is printed with the seconds that it took.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from ddim_core.lora.data import Captioned
from ddim_core.lora.export import save_kohya
from ddim_core.lora.latents import encode_latents
from ddim_core.lora.specs import LatentSpec, LoraExecution, LoraSpec
from ddim_core.lora.texts import distinct_prompts, embed_prompts
from ddim_core.lora.training.batches import TrainingImages
from ddim_core.lora.training.loop import start, train
from ddim_core.lora.training.loss import Prompts
from ddim_core.text2image.base_folder import load_text_encoders, own_resolution, size_step
from ddim_core.text2image.embedded import embedded_base
from ddim_core.text2image.scenes import (
    BACKGROUNDS,
    TEMPLATES,
    draw,
    other_views,
    subject_scenes,
)
from flows.requests.lora import SUBJECT_RECIPE
from tasks.text2image.embedded import INSTANCE_WORDS

SIDE = 32  # pixels of the embedded base
N_EPOCHS, SHUFFLED, BY_HEART = 8, 4, 8
EVERY = 40  # steps an epoch
RECIPE = replace(SUBJECT_RECIPE, targets=("attention",), steps=EVERY * (N_EPOCHS - 1),
                 checkpoint_every=EVERY)  # fmt: skip
WRONG = replace(RECIPE, checkpoint_every=RECIPE.steps)
LONG = replace(SUBJECT_RECIPE, steps=25 * EVERY, checkpoint_every=25 * EVERY)


def pictures(folder: Path) -> list[Captioned]:
    """Writes the subject's five views as a folder, as a user has one; returns each of them under
    captions of three forms."""
    folder.mkdir(parents=True)
    items = []
    for i, scene in enumerate(subject_scenes()):
        Image.fromarray(draw(scene, SIDE)).save(folder / f"{i}.png")
        data = (folder / f"{i}.png").read_bytes()
        items += [
            Captioned(f"{i}-{k}.png", data, text)
            for k, text in enumerate(captions_of(scene.background))
        ]
    return items


def held_out(folder: Path) -> None:
    """Writes views of the same subject that no LoRA here is trained on."""
    folder.mkdir(parents=True)
    for i, scene in enumerate(other_views()):
        Image.fromarray(draw(scene, SIDE)).save(folder / f"{i:02d}.png")


def prompts() -> list[str]:
    """The subject's words before every background, in three forms."""
    return [text for background in BACKGROUNDS for text in captions_of(background)]


def captions_of(background: str) -> list[str]:
    """Three forms of one caption."""
    return [form.format(subject=INSTANCE_WORDS, background=background) for form in TEMPLATES]


def trained(
    base: Path, items: list[Captioned], captions: list[str], spec: LoraSpec, place: str
) -> Iterator[int]:
    """Trains a LoRA, writes its kept steps to `place`, a pattern, and yields their numbers."""
    torch.set_num_threads(1)
    texts = distinct_prompts(captions)
    size = LatentSpec(resolution=own_resolution(base))
    latents = encode_latents(base, items, size, size_step(base))
    images = TrainingImages.from_arrays(latents, captions, texts)
    state, encoders = start(spec, base, LoraExecution(threads=1)), load_text_encoders(base)
    for record in train(spec, state, Prompts.from_arrays(embed_prompts(base, texts)), images):
        if record.step % spec.checkpoint_every == 0:
            number = record.step // spec.checkpoint_every
            save_kohya(Path(place.format(number)), state.network, encoders, spec, "unicorn")
            yield number


def plant(folder: Path) -> None:
    """Writes eight epochs with two faults, the views, others of the subject, and prompts."""
    base, items = embedded_base(), pictures(folder / "images")
    held_out(folder / "held-out")
    (folder / "prompts.txt").write_text("\n".join(prompts()) + "\n")
    captions = [item.caption for item in items]
    place = str(folder / "epochs" / "unicorn-{:06d}.safetensors")
    for number in trained(base, items, captions, RECIPE, place):
        print(f"epoch {number}", flush=True)
    shuffled = [*captions[6:], *captions[:6]]  # each is another view's
    list(trained(base, items, shuffled, WRONG, place.replace("{:06d}", f"{SHUFFLED:06d}")))
    list(trained(base, items, captions, LONG, place.replace("{:06d}", f"{BY_HEART:06d}")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if not folder.exists():
        plant(folder)
    began = time.perf_counter()
    asked = [
        "lora", "score", str(folder / "epochs"), "--prompts", str(folder / "prompts.txt"),
        "--subject-images", str(folder / "images"), "--held-out-images", str(folder / "held-out"),
        "--images-per-prompt", "4", "--scales", "0.8,1",
    ]  # fmt: skip
    subprocess.run([sys.executable, "-m", "flows.cli.entry", *asked], check=True)
    print(f"{time.perf_counter() - began:.0f} seconds")


if __name__ == "__main__":
    main()
