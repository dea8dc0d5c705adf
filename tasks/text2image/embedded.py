"""The embedded data of the LoRA flows, each a folder like a user's own."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from PIL import Image

from ddim_core.text2image.scenes import (
    BACKGROUNDS,
    TEMPLATES,
    Scene,
    draw,
    draw_all,
    held_out_subjects,
    other_views,
    style_scenes,
    subject_scenes,
)
from tasks.lora.data import CaptionedImages
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef

INSTANCE_WORDS, CLASS_WORDS = "sks horse", "horse"
LICENCES = {
    "twemoji": "Twemoji, (c) Twitter, Inc. and other contributors, CC-BY 4.0",
    "openmoji": "OpenMoji, CC BY-SA 4.0",
}


@cached_task
def style_folder(resolution: int) -> CaptionedImages:
    """Draws the second style as a captioned folder: OpenMoji of every second subject."""
    scenes = style_scenes()
    captions = [scene.caption(TEMPLATES[i % len(TEMPLATES)]) for i, scene in enumerate(scenes)]
    return _captioned(scenes, captions, resolution)


@cached_task
def subject_folder(resolution: int) -> CaptionedImages:
    """Draws five views of a subject that the base never saw, with the instance prompts."""
    scenes = subject_scenes()
    return _captioned(scenes, [instance_prompt(s.background) for s in scenes], resolution)


@cached_task
def held_out_folder(kind: str, resolution: int) -> CaptionedImages:
    """Draws what the embedded `style` or `subject` is not trained on, for its validation loss."""
    if kind == "subject":
        scenes = other_views()
        return _captioned(scenes, [instance_prompt(s.background) for s in scenes], resolution)
    colours = list(BACKGROUNDS)
    scenes = [
        Scene(subject, colours[(i + shift) % len(colours)], "openmoji")
        for shift in (0, 4)
        for i, subject in enumerate(held_out_subjects())
    ]
    return _captioned(scenes, [scene.caption() for scene in scenes], resolution)


@cached_task
def draw_scenes(scenes: list[Scene], resolution: int) -> ArtifactRef:
    """Draws scenes; returns a reference to their `images`."""
    return store.put_arrays({"images": draw_all(scenes, resolution)}, "scenes")


def instance_prompt(background: str) -> str:
    """The words for the new subject."""
    return TEMPLATES[0].format(subject=INSTANCE_WORDS, background=background)


def class_prompts() -> list[str]:
    """The plain prompts of the new subject's class, whose pictures a LoRA should leave alone."""
    return [TEMPLATES[0].format(subject=CLASS_WORDS, background=b) for b in BACKGROUNDS]


def _captioned(scenes: list[Scene], captions: list[str], resolution: int) -> CaptionedImages:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lines = []
        for i, (scene, caption) in enumerate(zip(scenes, captions, strict=True)):
            name = f"{i:03d}-{scene.subject}-{scene.background}.png"
            Image.fromarray(draw(scene, resolution)).save(folder / name)
            lines.append(json.dumps({"file_name": name, "text": caption}))
        (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        style = scenes[0].style
        (folder / "LICENCE.txt").write_text(LICENCES[style] + "\n", encoding="utf-8")
        ref = store.put_folder(folder)
    return CaptionedImages(**vars(ref), n_images=len(scenes))
