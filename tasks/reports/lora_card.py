"""A LoRA handed over: its files, its pictures and its model card in one folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image
from prefect import task

from ddim_core.lora.specs import LatentSpec, LoraSpec, PictureSpec
from ddim_core.text2image.families import family_of
from tasks.lora.data import captions_of
from tasks.lora.record import LoraRecord
from tasks.reports.page import render
from tasks.storage import places, store
from tasks.storage.naming import run_name
from tasks.storage.store import ArtifactRef

CARD = "README.md"
TEMPLATE = Path(__file__).with_suffix(".md.html")
SHOWN = 8  # training images, and captions, on the card
LEAST_SIDE = 96  # pixels that a small picture is enlarged to
UNKNOWN = "not stated; ask whoever holds the rights before you publish this LoRA"


@task(name="write-card", task_run_name=run_name("write-card"))
def write_card(
    record: LoraRecord,
    spec: LoraSpec,
    latents: LatentSpec,
    pictures: PictureSpec,
    licence: str,
) -> str:
    """Writes a LoRA's folder below DDIM_DATA/loras, ready to be uploaded; returns its place.

    In it: each layout that is written, `README.md` (a model card in the form of the Hugging Face
    hub), the settings as JSON, and pictures: training images, and validation prompts by step.
    """
    folder = places.local_dir("loras", record.name)
    folder.mkdir(parents=True, exist_ok=True)
    kohya = _copied(record.kohya, folder, "_kohya") if record.kohya else None
    _copied(record.lora, folder, "")
    _grid([_training_images(record.data)], folder / "training.png")
    rows = [store.get_arrays(stage.pictures)["images"] for stage in record.validation]
    if rows:
        _grid([list(row) for row in rows], folder / "validation.png")
    settings = {"lora": asdict(spec), "latents": asdict(latents), "pictures": asdict(pictures)}
    (folder / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")
    defaults = asdict(LoraSpec())
    captions = captions_of(record.data)
    classes = captions_of(record.class_data) if record.class_data else []
    losses = store.get_arrays(record.training.losses)["loss"]
    tenth = max(1, len(losses) // 10)
    values = {
        "n_images": len(captions),
        "n_class_images": len(classes),
        "captions": list(dict.fromkeys(captions))[:SHOWN],
        "class_captions": list(dict.fromkeys(classes))[:SHOWN],
        "first_loss": float(np.mean(losses[:tenth])),
        "last_loss": float(np.mean(losses[-tenth:])),
        "record": record,
        "kohya": kohya,
        "tag": family_of(Path(record.base)).tag,
        "spec": spec,
        "latents": latents,
        "pictures": pictures,
        "changed": {k: v for k, v in asdict(spec).items() if v != defaults[k]},
        "licence": licence or UNKNOWN,
    }
    (folder / CARD).write_text(render(TEMPLATE, values), encoding="utf-8")
    return str(folder)


def _copied(ref: ArtifactRef, folder: Path, ending: str) -> str:
    source = next(iter(store.get_folder(ref).glob("*.safetensors")))
    name = f"{source.stem}{ending}.safetensors"
    shutil.copyfile(source, folder / name)
    return name


def _training_images(data: ArtifactRef) -> list[np.ndarray]:
    folder = store.get_folder(data)
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").split("\n")
    names = sorted(json.loads(line)["file_name"] for line in lines if line)
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, min(SHOWN, len(names)), dtype=int)]
    opened = [Image.open(folder / name).convert("RGB") for name in chosen]
    side = min(512, max(min(image.size) for image in opened))
    return [np.asarray(_square(image, side)) for image in opened]


def _square(image: Image.Image, side: int) -> Image.Image:
    width, height = image.size
    edge = min(width, height)
    left, top = (width - edge) // 2, (height - edge) // 2
    return image.crop((left, top, left + edge, top + edge)).resize((side, side))


def _grid(rows: list[list[np.ndarray]], path: Path) -> None:
    """Saves pictures in rows, small ones enlarged pixel by pixel."""
    lines = [np.concatenate(list(row), axis=1) for row in rows]
    picture = Image.fromarray(np.concatenate(lines, axis=0))
    times = max(1, -(-LEAST_SIDE // rows[0][0].shape[0]))
    size = (picture.width * times, picture.height * times)
    picture.resize(size, Image.Resampling.NEAREST).save(path)
