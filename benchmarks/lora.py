"""LoRA steps per second against the way of diffusers' script, in turn in one process.

    python -m benchmarks.lora BASE [--resolution 256] [--batch 1] [--steps 2] [--rounds 5]

The script decodes, cuts and encodes its images and embeds their captions at each visit; we do that
once, before training. Both do one forward and backward of equal U-Nets with equal LoRAs and a step
of AdamW; ours runs the frozen linear layers by oneDNN. Times are CPU seconds of this process on
one thread, so that a busy machine does not count; what is computed once is told apart.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.training_utils import cast_training_params
from PIL import Image
from torchvision import transforms

from ddim_core.lora.adapters import attach, trainable
from ddim_core.lora.data import Captioned
from ddim_core.lora.latents import encode_latents
from ddim_core.lora.specs import LatentSpec, LoraExecution, LoraSpec, Precision
from ddim_core.lora.texts import distinct_prompts, embed_prompts, token_ids
from ddim_core.lora.training.batches import TrainingImages
from ddim_core.lora.training.engine import FORMATS
from ddim_core.lora.training.loop import LoraState, start, train
from ddim_core.lora.training.loss import Prompts
from ddim_core.text2image.base_folder import (
    load_network,
    load_noise_scheduler,
    load_text_encoders,
    load_tokenizers,
    load_vae,
    own_resolution,
    size_step,
)

CAPTION = "a photo of a cat"
N_IMAGES = 8


@dataclass(frozen=True)
class Setting:
    """One comparison."""

    base: Path
    resolution: int
    batch: int
    steps: int
    rounds: int
    device: str = "cpu"
    precision: Precision = "no"

    @property
    def spec(self) -> LoraSpec:
        return LoraSpec(
            steps=10**6, batch_size=self.batch, gradient_clip=0.0, precision=self.precision
        )

    @property
    def execution(self) -> LoraExecution:
        return LoraExecution(threads=1, device=self.device)


def pictures(side: int) -> list[Captioned]:
    """Noise a fifth larger than it is cut to, as PNG files."""
    stream, items = np.random.RandomState(0), []
    for i in range(N_IMAGES):
        buffer = io.BytesIO()
        shape = (side * 6 // 5, side * 6 // 5, 3)
        Image.fromarray(stream.randint(0, 256, shape).astype(np.uint8)).save(buffer, "PNG")
        items.append(Captioned(f"{i}.png", buffer.getvalue(), CAPTION))
    return items


def ours(
    setting: Setting, state: LoraState, items: list[Captioned]
) -> tuple[Callable[[], object], float]:
    """One step of our loop, and the seconds spent before it."""
    began = time.process_time()
    prompts = distinct_prompts([CAPTION])
    spec = LatentSpec(resolution=setting.resolution)
    latents = encode_latents(setting.base, items, spec, size_step(setting.base), setting.device)
    embedded = Prompts.from_arrays(embed_prompts(setting.base, prompts, setting.device))
    once = time.process_time() - began
    images = TrainingImages.from_arrays(latents, [CAPTION] * len(items), prompts)
    loop = train(setting.spec, state, embedded, images)
    return lambda: next(loop), once


def as_the_script(setting: Setting, items: list[Captioned]) -> Callable[[], object]:
    """One step as `train_text_to_image_lora.py` of diffusers does it: frozen weights in the
    training's number format, the LoRA's in float32, the forward by autocast."""
    base, device, half = setting.base, setting.device, FORMATS[setting.precision]
    vae, (encoder,), (tokenizer,) = load_vae(base), load_text_encoders(base), load_tokenizers(base)
    scheduler = load_noise_scheduler(base)
    unet = load_network(base)  # of its own: ours runs its linear layers in another way
    vae, encoder, unet = (part.to(device, half) for part in (vae, encoder, unet))
    attach(unet, [], setting.spec)
    unet.to(device)
    cast_training_params(unet)
    autocast = nullcontext() if half == torch.float32 else torch.autocast(device, half)
    unet.train()
    parameters = list(trainable(unet, []).values())
    optimizer = torch.optim.AdamW(parameters, lr=setting.spec.learning_rate, weight_decay=1e-2)
    prepare = transforms.Compose(
        [
            transforms.Resize(setting.resolution, transforms.InterpolationMode.LANCZOS),
            transforms.CenterCrop(setting.resolution),
            transforms.ToTensor(),
            transforms.Normalize([0.5], [0.5]),
        ]
    )

    def visits() -> Iterator[Captioned]:
        while True:
            yield from items

    visit = visits()

    def step() -> float:
        chosen = [next(visit) for _ in range(setting.batch)]
        opened = [Image.open(io.BytesIO(item.data)).convert("RGB") for item in chosen]
        pixels = torch.stack([prepare(image) for image in opened]).to(device, half)
        ids = torch.stack([token_ids(tokenizer, item.caption) for item in chosen]).to(device)
        with torch.no_grad():  # frozen there, so that nothing is kept for a backward either
            latents = vae.encode(pixels).latent_dist.sample() * vae.config.scaling_factor
            states = encoder(ids, return_dict=False)[0]
        noise = torch.randn_like(latents)
        n_train = len(scheduler.alphas_cumprod)
        t = torch.randint(0, n_train, (len(latents),), device=device)
        noisy = scheduler.add_noise(latents, noise, t)
        target = noise
        if scheduler.config.prediction_type == "v_prediction":
            target = scheduler.get_velocity(latents, noise, t)
        with autocast:
            predicted = unet(noisy, t, states, return_dict=False)[0]
            loss = torch.nn.functional.mse_loss(predicted.float(), target.float())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def seconds(step: Callable[[], object], n: int) -> float:
    began = time.process_time()
    for _ in range(n):
        step()
    return (time.process_time() - began) / n


def compare(setting: Setting) -> dict[str, Any]:
    """Medians of seconds a step, and their ratio."""
    torch.set_num_threads(1)
    items = pictures(setting.resolution)
    state = start(setting.spec, setting.base, setting.execution)
    our_step, once = ours(setting, state, items)
    their_step = as_the_script(setting, items)
    our_step(), their_step()  # the first call of each allocates
    rounds = [
        (seconds(our_step, setting.steps), seconds(their_step, setting.steps))
        for _ in range(setting.rounds)
    ]
    mine, theirs = (statistics.median(column) for column in zip(*rounds, strict=True))
    return {
        "base": setting.base.name,
        "resolution": setting.resolution,
        "batch": setting.batch,
        "cpu_seconds_per_step": mine,
        "cpu_seconds_per_step_as_the_script": theirs,
        "steps_per_second_over_the_script": theirs / mine,
        "cpu_seconds_once_per_image": once / len(items),
        "rounds": setting.rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("--resolution", type=int, default=0)
    for name, default in (("batch", 1), ("steps", 2), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    side = given.resolution or own_resolution(given.base)
    setting = Setting(given.base, side, given.batch, given.steps, given.rounds)
    print(json.dumps(compare(setting), indent=2))


if __name__ == "__main__":
    main()
