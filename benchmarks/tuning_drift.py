"""How far does one tuned list carry? Each model's list is judged on each other's images.

    python -m benchmarks.tuning_drift training FOLDER  # of the demo's digits, kept five times
    python -m benchmarks.tuning_drift lora FOLDER      # a style LoRA on the base of 16 pixels
    python -m benchmarks.tuning_drift folders A B ...  # of U-Nets, such as other trainings

DPM++ 2M at 4 calls is tuned on each model (128 images; the base at guidance 2, 16 images of 16
prompts, a long run of 32 steps, two ends and rho alone), and run on as many fresh images of each:
the distance from that model's own long run, and how much farther that is than the list found there,
with its 95 % interval. FOLDER keeps what is trained.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.base_samplers import BASE, RESOLUTION
from benchmarks.lora_epochs import trained
from benchmarks.tuning_sides import FRESH_SEED, MakeRuns, Model, Side, timed
from ddim_core.checkpoints.checkpoint import save_pipeline
from ddim_core.images.load import load_images
from ddim_core.lora.data import Captioned
from ddim_core.networks.training import start, train
from ddim_core.pipelines.loras import lay_over
from ddim_core.pipelines.opening import open_pipeline
from ddim_core.pipelines.prompts import encode_prompts
from ddim_core.text2image.scenes import TEMPLATES, base_scenes, draw, style_scenes
from ddim_core.tuning.judged import serves
from ddim_core.tuning.runs import FRESH, TUNING, PipelineRuns, Runs, chunks_of
from ddim_core.tuning.search import MOVES
from flows.requests.lora import STYLE_RECIPE
from flows.requests.models import toy_spec

SAMPLER, CALLS, LORA_STEPS = "dpmpp_2m", 4, 60
RECIPE = replace(  # that of the base of 16 pixels, as the figures were measured
    STYLE_RECIPE, rank=8, targets=("attention", "feed-forward", "convolutions"), learning_rate=2e-3,
    steps=LORA_STEPS, checkpoint_every=LORA_STEPS,
)  # fmt: skip
IMAGES, KEPT = 128, (500, 1000, 1500, 2000, 2500)
PROMPTS, GUIDANCE, BASE_LONG, SCALES = 16, 2.0, 32, (0.0, 0.5, 1.0)


def of_training(folder: Path) -> dict[str, Model]:
    """The averaged weights of one training after so many steps."""
    spec = toy_spec("digits", None, 1, KEPT[-1], 0)
    places = {step: folder / f"{step}" for step in KEPT}
    if missing := [step for step, place in places.items() if not place.is_dir()]:
        images, state = load_images("digits", "train", spec.model.resolution), start(spec)
        for record in train(spec, images.images, state):
            if record.step in missing:
                save_pipeline(places[record.step], state.ema, spec.noise, record.step)
                print(f"step {record.step}", flush=True)
                if record.step == missing[-1]:
                    break
    return {f"{step} steps": Model.of_folder(place, IMAGES) for step, place in places.items()}


def of_folders(*folders: Path) -> dict[str, Model]:
    """What somebody trained, by the folders' names."""
    return {folder.name: Model.of_folder(folder, IMAGES) for folder in folders}


def of_lora(folder: Path) -> dict[str, Model]:
    """The base of 16 pixels under the embedded style at scales."""
    file = folder / "style.safetensors"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        scenes = style_scenes()
        captions = [s.caption(TEMPLATES[i % len(TEMPLATES)]) for i, s in enumerate(scenes)]
        items = []
        for i, (scene, caption) in enumerate(zip(scenes, captions, strict=True)):
            Image.fromarray(draw(scene, RESOLUTION)).save(folder / "picture.png")
            items.append(Captioned(f"{i}.png", (folder / "picture.png").read_bytes(), caption))
        list(trained(BASE, items, captions, RECIPE, str(file)))
    scenes = base_scenes()[:: max(1, len(base_scenes()) // (2 * PROMPTS))]
    prompts = [scene.caption() for scene in scenes][: 2 * PROMPTS]
    return {f"scale {scale:g}": _laid(file, scale, prompts) for scale in SCALES}


def _laid(file: Path, scale: float, prompts: list[str]) -> Model:
    opened = open_pipeline(BASE)
    if scale:
        lay_over(opened, [file.read_bytes()], [scale])
    with torch.inference_mode():
        encoded = encode_prompts(opened, prompts)

    def make(which: slice) -> MakeRuns:
        rows = {k: v if len(v) == 1 else v[which] for k, v in encoded.items()}

        def runs(seed: int, first: int) -> tuple[Runs, list[range]]:
            def of(indices: object) -> dict[str, torch.Tensor]:
                places = [i % PROMPTS for i in indices]  # type: ignore[attr-defined]
                return {k: v if len(v) == 1 else v[places] for k, v in rows.items()}

            drawn = PipelineRuns(opened, of, GUIDANCE, seed, first, PROMPTS, PROMPTS)
            return drawn, chunks_of(PROMPTS, PROMPTS)

        return runs

    every_second = make(slice(0, None, 2)), make(slice(1, None, 2))
    return Model(
        dict(opened.scheduler),
        Side.of(every_second[0], 0, TUNING, BASE_LONG),
        Side.of(every_second[1], FRESH_SEED, FRESH, BASE_LONG),
    )


def main() -> int:
    torch.set_num_threads(1)
    what, *folders = sys.argv[1:]
    began = time.process_time()
    make = {"training": of_training, "lora": of_lora, "folders": of_folders}[what]
    models: dict[str, Model] = make(*map(Path, folders))  # type: ignore[operator]
    print(f"models and long runs: {time.process_time() - began:.0f} CPU s", flush=True)
    moves = () if what == "lora" else MOVES
    lists = {name: timed(model, SAMPLER, CALLS, moves=moves)[0] for name, model in models.items()}
    for name, model in models.items():
        own, stock = (model.fresh.away(text, CALLS) for text in (lists[name], SAMPLER))
        far = serves(stock, own)
        print(
            f"\non {name}: its own list {own.mean():.4f}; as it stands {np.mean(stock):.4f}, "
            f"{far.mean:+.0%} [{far.low:+.0%}, {far.high:+.0%}]"
        )
        for other, text in lists.items():
            if other != name:
                away = model.fresh.away(text, CALLS)
                far = serves(away, own)
                print(
                    f"  list of {other}: {away.mean():.4f}, "
                    f"{far.mean:+.1%} [{far.low:+.1%}, {far.high:+.1%}]"
                )
    print(f"{time.process_time() - began:.0f} CPU s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
