"""A scorecard's rows in, sentences out: what was gained, what it cost, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence

from ddim_core.lora.scoring.measures import MEANINGS
from ddim_core.lora.scoring.row import LoraRow, Score
from ddim_core.lora.scoring.scorecard import COPY_LEVEL, Measure
from ddim_core.lora.scoring.specs import ROLES
from ddim_core.statistics.paired import PairedDifference

COPYING = ("copy_risk_features", "copy_risk_pixels", "nearest_features", "nearest_pixels")
FIRST = ("style_probability", "subject_likeness", "asked_subject", "clip_t", "style_distance")
N_FIRST = 3  # of these, as far as they were taken, in the headline
SHARES = frozenset(
    {"style_probability", "asked_subject", "asked_background", "copy_risk_features",
     "copy_risk_pixels", "copies", "broken", "off_prompt"}
)  # fmt: skip


def by_role(rows: Sequence[LoraRow]) -> dict[str, list[LoraRow]]:
    """Groups rows by their prompts, each in the order of scales."""
    grouped: dict[str, list[LoraRow]] = {}
    for row in sorted(rows, key=lambda row: row.scale):
        grouped.setdefault(row.prompts, []).append(row)
    return {role: grouped[role] for role in ROLES if role in grouped}


def full_scale(rows: Sequence[LoraRow]) -> LoraRow:
    """The row at scale 1, or at the largest scale where 1 was not asked for."""
    return next((row for row in rows if row.scale == 1.0), rows[-1])


def number(name: str, value: float) -> str:
    """A measure's value for people: shares in per cent."""
    if name in SHARES:
        return f"{round(100.0 * value)} %"  # what rounds to 0 has no sign
    return f"{value:.3g}" if abs(value) < 100.0 else f"{value:.0f}"


def interval(name: str, of: Score | Measure | PairedDifference) -> str:
    """A measure, or its change, with its 95 % interval."""
    if of.low is None or of.high is None:
        return number(name, of.value)
    return f"{number(name, of.value)} (95 %: {number(name, of.low)} to {number(name, of.high)})"


def read_scorecard(rows: Sequence[LoraRow]) -> list[str]:
    """Says what the LoRA changed at full scale, whether it copies, and how far one can go.

    A change is called one only where its paired interval leaves out 0.
    """
    said: list[str] = []
    for role, line in by_role(rows).items():
        row = full_scale(line)
        prompts = f"{row.n_prompts} prompt{'s' if row.n_prompts != 1 else ''}"
        where = (
            f"{ROLES[role][0].upper()}{ROLES[role][1:]} ({prompts}, "
            f"{row.n_images} pictures, scale {row.scale:g} against the base, paired)"
        )
        if row.scale == 0.0:
            said.append(f"{where}: only the base was drawn.")
            continue
        said += [
            f"{where}: {kind}: {'; '.join(moved)}."
            for kind, moved in _changes(row, line[0]).items()
            if moved
        ]
        said += _copying(role, row) + _range(role, line)
    return said


def headline(rows: Sequence[LoraRow]) -> str:
    """Says shortly what the LoRA did at full scale to the first prompts, and how far one can go."""
    role, line = next(iter(by_role(rows).items()))
    row = full_scale(line)
    if row.scale == 0.0:
        return "Only the base was drawn."
    found = [
        f"{MEANINGS[name][0]} {number(name, line[0].measures[name].value)} -> "
        f"{number(name, row.measures[name].value)}"
        for name in FIRST
        if name in row.measures
    ]
    told = "; ".join(found[:N_FIRST]) or "no measure was taken"
    said = f"At scale {row.scale:g}, {ROLES[role]}: {told}."
    return " ".join([said, *_range(role, line)])


def shown_first(row: LoraRow) -> str:
    """Says what pictures of a scale are measured to be, by what the headline names, and how many
    they are."""
    told = [
        f"{name.replace('_', ' ')} {interval(name, row.measures[name])}"
        for name in FIRST
        if name in row.measures
    ]
    return ", ".join([*told[:N_FIRST], f"N = {row.n_images} pictures"])


def _changes(row: LoraRow, base: LoraRow) -> dict[str, list[str]]:
    """What got better, worse, or other, and what cannot be told, by that in words."""
    unmoved = "no change to be told"
    sorted_by: dict[str, list[str]] = {"gained": [], "lost": [], "also moved": [], unmoved: []}
    for name, (meaning, better) in MEANINGS.items():
        if name not in row.measures or name in COPYING:
            continue
        score, before = row.measures[name], base.measures[name]
        moved = f"{meaning} {number(name, before.value)} -> {number(name, score.value)}"
        if score.change is None:
            sorted_by[unmoved].append(f"{moved} (too few pictures for an interval)")
        elif score.change.low <= 0.0 <= score.change.high:
            sorted_by[unmoved].append(moved)
        else:
            grew = better * (1 if score.change.low > 0.0 else -1)
            kind = {1: "gained", -1: "lost", 0: "also moved"}[grew]
            sorted_by[kind].append(f"{moved}, change {interval(name, score.change)}")
    return sorted_by


def _copying(role: str, row: LoraRow) -> list[str]:
    said = []
    for space in ("features", "pixels"):
        name = f"copy_risk_{space}"
        score = row.measures.get(name)
        if score is None or score.low is None or score.change is None:
            continue
        if score.low > COPY_LEVEL and score.change.low > 0.0:
            said.append(
                f"It copies: in {space}, {interval(name, score)} of the pictures of {role} prompts "
                f"lie nearer to a training image than 95 % of unseen real images do "
                f"(the base: {number(name, score.value - score.change.value)})."
            )
    return said


def _range(role: str, line: Sequence[LoraRow]) -> list[str]:
    """Up to which scale the asked subject is as often there as without the LoRA."""
    name = "asked_subject"
    if name not in line[0].measures or role in ("instance",):
        return []
    kept = 0.0
    for row in line[1:]:
        change = row.measures[name].change
        if change is None or change.high < 0.0:
            break
        kept = row.scale
    if kept == line[-1].scale:
        return [f"The asked subject of {role} prompts is kept at every scale drawn."]
    return [
        f"The asked subject of {role} prompts is found as often as without the LoRA "
        f"up to scale {kept:g}, and measurably less often at the next."
    ]
