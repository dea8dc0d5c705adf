"""Which prompts a LoRA is scored on, and what their pictures are compared with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ddim_core.lora.scoring.specs import PromptRole, PromptSet
from ddim_core.text2image.drawings import Style
from ddim_core.text2image.scenes import (
    BACKGROUNDS,
    NEW_SUBJECT,
    SUBJECTS,
    Scene,
    held_out_subjects,
    other_views,
)
from tasks.lora.scoring.measure import Compared
from tasks.storage.store import ArtifactRef
from tasks.text2image.embedded import (
    CLASS_WORDS,
    INSTANCE_WORDS,
    class_prompts,
    draw_scenes,
    instance_prompt,
)

MOST_PROMPTS = 8  # of a user's own captions
OTHERS_EVERY = 4  # of the embedded subjects, those whose pictures are watched for drift
STYLE_PER_PROMPT, SUBJECT_PER_PROMPT = 2, 4


@dataclass(frozen=True)
class ScoredSet:
    """Prompts, and what their pictures are compared with.

    Attributes:
        asked: The prompts.
        known: Images; without a `base` the base itself draws others of the prompts.
        aliases: Words of the prompts that stand for a subject the judge knows.
    """

    asked: PromptSet
    known: Compared
    aliases: Mapping[str, str] = field(default_factory=dict)

    @property
    def another_draw(self) -> PromptSet:
        """The same prompts from other noise."""
        return replace(self.asked, seed=self.asked.seed + 1)


def embedded_style_sets(training: ArtifactRef, how: PromptSet) -> list[ScoredSet]:
    """The embedded style's sets: subjects it was not trained on, and those it was."""
    held_out = held_out_subjects()
    trained = [subject for subject in SUBJECTS if subject not in held_out]
    real = _drawings("openmoji", held_out, how)
    sets: tuple[tuple[PromptRole, list[str]], ...] = (
        ("held-out", held_out),
        ("trained", trained[::2]),
    )
    return [
        ScoredSet(
            replace(how, role=role, prompts=_one_each(subjects), per_prompt=STYLE_PER_PROMPT),
            Compared(
                training,
                real=real,
                style=_drawings("openmoji", subjects, how),
                base=_drawings("twemoji", subjects, how),
            ),
        )
        for role, subjects in sets
    ]


def embedded_subject_sets(training: ArtifactRef, how: PromptSet) -> list[ScoredSet]:
    """The embedded subject's sets: its own prompts, its class's, and other subjects'."""
    others = [s for s in list(SUBJECTS)[::OTHERS_EVERY] if s != CLASS_WORDS]
    known = Compared(training, real=draw_scenes(other_views(), how.resolution))
    own = tuple(map(instance_prompt, BACKGROUNDS))
    return [
        ScoredSet(
            replace(how, role="instance", prompts=own, per_prompt=SUBJECT_PER_PROMPT),
            replace(known, subject=training),
            {INSTANCE_WORDS: NEW_SUBJECT},
        ),
        ScoredSet(
            replace(how, role="class", prompts=tuple(class_prompts()),
                    per_prompt=SUBJECT_PER_PROMPT),
            known,
        ),
        ScoredSet(
            replace(how, role="other", prompts=_one_each(others), per_prompt=STYLE_PER_PROMPT),
            known,
        ),
    ]  # fmt: skip


def unnamed_subjects(captions: Sequence[str]) -> list[str]:
    """Prompts of the embedded base's subjects that no caption names: it is not trained on them."""
    text = " ".join(captions)
    return list(_one_each([s for s in SUBJECTS if not re.search(rf"\b{s}\b", text)]))


def style_sets(
    training: ArtifactRef,
    captions: Sequence[str],
    held_out: Sequence[str],
    real: ArtifactRef | None,
    how: PromptSet,
) -> list[ScoredSet]:
    """A user's style: prompts it was not trained on where some are given, and its captions.

    `real` are images that it was not trained on, for the copy risk.
    """
    known = Compared(training, style=training, real=real)
    asked: tuple[tuple[PromptRole, Sequence[str]], ...] = (
        ("held-out", held_out),
        ("trained", _first(captions)),
    )
    return [
        ScoredSet(
            replace(how, role=role, prompts=_distinct(prompts), per_prompt=STYLE_PER_PROMPT), known
        )
        for role, prompts in asked
        if prompts
    ]


def subject_sets(
    training: ArtifactRef,
    captions: Sequence[str],
    classes: Sequence[str],
    held_out: Sequence[str],
    real: ArtifactRef | None,
    how: PromptSet,
) -> list[ScoredSet]:
    """A user's subject: its instance prompts, its class's, and others where some are given.

    `real` are images of it that it was not trained on, for the copy risk.
    """
    roles: tuple[tuple[PromptRole, Sequence[str], ArtifactRef | None], ...] = (
        ("instance", _first(captions), training),
        ("class", _first(classes), None),
        ("other", held_out, None),
    )
    return [
        ScoredSet(
            replace(how, role=role, prompts=_distinct(prompts), per_prompt=SUBJECT_PER_PROMPT),
            Compared(training, real=real, subject=subject),
        )
        for role, prompts, subject in roles
        if prompts
    ]


def _one_each(subjects: Sequence[str]) -> tuple[str, ...]:
    """A prompt for each subject, the backgrounds in turn."""
    colours = list(BACKGROUNDS)
    return tuple(Scene(s, colours[i % len(colours)]).caption() for i, s in enumerate(subjects))


def _drawings(style: Style, subjects: Sequence[str], how: PromptSet) -> ArtifactRef:
    scenes = [Scene(s, background, style) for s in subjects for background in BACKGROUNDS]
    return draw_scenes(scenes, how.resolution)


def _distinct(prompts: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(prompts))


def _first(prompts: Sequence[str]) -> tuple[str, ...]:
    return _distinct(prompts)[:MOST_PROMPTS]
