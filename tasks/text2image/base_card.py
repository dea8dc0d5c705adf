"""A trained base in, what the judge finds in its pictures out, and its model card."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from prefect import task

from ddim_core.common.plain_files import is_there
from ddim_core.lora.scoring.scorecard import groups_of, share_measure
from ddim_core.lora.scoring.specs import PromptSet
from ddim_core.reports.lora_figures import picture_rows
from ddim_core.safe_files.settings import read_settings
from ddim_core.text2image.base_folder import own_resolution
from ddim_core.text2image.judge import CLASSES, EmojiJudge, expected_of
from ddim_core.text2image.scenes import (
    LOOK_TEMPLATES,
    SUBJECTS,
    TEMPLATES,
    Scene,
    base_scenes,
    draw_all,
    look_scenes,
    unseen_scenes,
)
from ddim_core.text2image.specs import BaseSpec, BaseTrainSpec, JudgeSpec
from tasks.reports.page import render
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef
from tasks.text2image.judge import TrainedJudge

SHOWN = 12
TEMPLATE = Path(__file__).with_suffix(".md.html")


def base_prompts(unseen: bool, steps: int, guidance: float, resolution: int) -> PromptSet:
    """One scene of each subject in every template, of pairs with a background that the base was
    trained on, or was not."""
    texts = [scene.caption(template) for scene in _scenes(unseen) for template in TEMPLATES]
    return PromptSet(
        "held-out" if unseen else "trained", tuple(texts), 1, steps, guidance, resolution
    )


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval."""

    share: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Judged:
    """In which share of n_images pictures the judge finds what was asked, by question."""

    n_images: int
    subject: Share
    background: Share
    style: Share


@cached_task
def judge_base(unseen: bool, drawn: ArtifactRef, judge: ArtifactRef) -> Judged:
    """Says in which share of the pictures of `base_prompts` the judge finds what was asked.

    Intervals are 95 %, over subjects; the judge's own errors are in the share.
    """
    scenes = [scene for scene in _scenes(unseen) for _ in TEMPLATES]
    images = store.get_arrays(drawn)["images"]
    answers = EmojiJudge.from_bytes(store.get(judge)).answers(images, expected_of(scenes))
    groups = groups_of([scene.subject for scene in scenes])
    found = {question: share_measure(answers[question], groups) for question in CLASSES}
    shares = {question: Share(x.value, x.low, x.high) for question, x in found.items()}
    return Judged(len(images), **shares)


@task(name="write-base-card")
def write_base_card(
    base: ArtifactRef,
    spec: BaseTrainSpec,
    asked: PromptSet,
    seen: Judged,
    unseen: Judged,
    pictures: ArtifactRef,
    judge: TrainedJudge,
    output: str,
    start: str,
) -> str:
    """Copies the base to a folder, with a model card, a picture, and what a grid over it needs:
    prompts of pairs that it was never shown, the real drawings, and the judge; returns the
    folder."""
    source, folder = store.get_folder(base), Path(output)
    for path in (path for path in source.rglob("*") if path.is_file()):
        # Never in place: whoever has the old weights mapped into memory would crash.
        store.write_whole(str(folder / path.relative_to(source)), path.read_bytes())
    images = store.get_arrays(pictures)["images"][:: len(TEMPLATES)]
    rows = [images[i * SHOWN : (i + 1) * SHOWN] for i in range(len(images) // SHOWN)]
    (folder / "samples.png").write_bytes(picture_rows({" " * i: x for i, x in enumerate(rows)}))
    scenes = unseen_scenes()
    (folder / "prompts.txt").write_text("".join(f"{scene.caption()}\n" for scene in scenes))
    store.write_whole(str(folder / "judge.safetensors"), store.get(judge))
    np.savez_compressed(folder / "real.npz", images=draw_all(scenes, spec.model.resolution))
    before = _recipe_of(Path(start)) if start else []
    about = judge.about
    recipe = [*before, _command(spec, start, folder.name, about.spec.steps)]
    values = {
        "spec": spec, "asked": asked, "seen": seen, "unseen": unseen, "judge": about,
        "n_scenes": len(look_scenes() if spec.looks else base_scenes()),
        "look_templates": LOOK_TEMPLATES, "n_unseen": len(unseen_scenes()), "templates": TEMPLATES,
        "recipe": recipe, "folder": folder.name,
    }  # fmt: skip
    (folder / "README.md").write_text(render(TEMPLATE, values), encoding="utf-8")
    record = {"recipe": recipe, "training": asdict(spec),
              "sampling": asdict(asked) | {"prompts": None},
              "seen": asdict(seen), "unseen": asdict(unseen),
              "judge": {"accuracy": about.accuracy, "n_test": about.n_test,
                        "sha256": hashlib.sha256(store.get(judge)).hexdigest()}}  # fmt: skip
    (folder / "card.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return str(folder)


def _recipe_of(start: Path) -> list[str]:
    """The commands that made the base that this one started from."""
    card = start / "card.json"
    if not is_there(card):
        return []
    try:
        told = read_settings(card)
    except ValueError:  # somebody else's: no reason to lose what was trained
        return []
    recipe, training = (
        told.get(name) if isinstance(told, dict) else None for name in ("recipe", "training")
    )
    if isinstance(recipe, list):
        return [str(command) for command in recipe]
    steps = training.get("steps") if isinstance(training, dict) else None
    if type(steps) is not int:
        return []
    model = BaseSpec.of(own_resolution(start))  # of the first base
    return [_command(BaseTrainSpec(model=model, steps=steps), "", start.name)]


def _command(
    spec: BaseTrainSpec, start: str, output: str, judge_steps: int = JudgeSpec.steps
) -> str:
    usual = BaseTrainSpec()
    words = [f"--resolution {spec.model.resolution}", f"--steps {spec.steps}"]
    for name in ("batch_size", "learning_rate", "ema_decay", "constant_steps", "seed"):
        if getattr(spec, name) != getattr(usual, name):
            words.append(f"--{name.replace('_', '-')} {getattr(spec, name)}")
    words += [f"--judge-steps {judge_steps}"] * (judge_steps != JudgeSpec.steps)
    words += ["--looks"] * spec.looks
    words += [f"--start {Path(start).name}"] * bool(start)
    return f"ddim train-base {' '.join(words)} --output {output}"


def _scenes(unseen: bool) -> list[Scene]:
    if unseen:
        return unseen_scenes()
    scenes = base_scenes()
    each = len(scenes) // len(SUBJECTS)
    return [scenes[i * each + i % each] for i in range(len(SUBJECTS))]
