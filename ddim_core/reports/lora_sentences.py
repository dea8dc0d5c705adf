"""A scorecard's rows in, sentences out: what was gained, what it cost, each with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ddim_core.lora.scoring.measures import MEANINGS
from ddim_core.lora.scoring.scorecard import COPY_LEVEL
from ddim_core.lora.scoring.specs import ROLES

Row = Mapping[str, Any]
COPYING = ("copy_risk_features", "copy_risk_pixels", "nearest_features", "nearest_pixels")
SHARES = frozenset(
    {"style_probability", "asked_subject", "asked_background", "copy_risk_features",
     "copy_risk_pixels"}
)  # fmt: skip


def by_role(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Groups rows by their prompts, each in the order of scales."""
    grouped: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: float(row["scale"])):
        grouped.setdefault(row["prompts"], []).append(row)
    return {role: grouped[role] for role in ROLES if role in grouped}


def full_scale(rows: Sequence[Row]) -> Row:
    """The row at scale 1, or at the largest scale where 1 was not asked for."""
    return next((row for row in rows if row["scale"] == 1.0), rows[-1])


def number(name: str, value: float | None) -> str:
    """A measure's value for people: shares in per cent."""
    if value is None:
        return "-"
    if name in SHARES:
        return f"{100.0 * value:.0f} %"
    return f"{value:.3g}" if abs(value) < 100.0 else f"{value:.0f}"


def interval(name: str, row: Row, part: str = "") -> str:
    """A measure, or its `_change`, with its 95 % interval."""
    value, low, high = (row[f"{name}{part}{end}"] for end in ("", "_low", "_high"))
    if low is None or high is None:
        return number(name, value)
    return f"{number(name, value)} (95 %: {number(name, low)} to {number(name, high)})"


def read_scorecard(rows: Sequence[Row]) -> list[str]:
    """Says what the LoRA changed at full scale, whether it copies, and how far one can go.

    A change is called one only where its paired interval leaves out 0.
    """
    said: list[str] = []
    for role, line in by_role(rows).items():
        row = full_scale(line)
        where = (
            f"{ROLES[role][0].upper()}{ROLES[role][1:]} ({row['n_prompts']} prompts, "
            f"{row['n_images']} pictures, scale {row['scale']:g} against the base, paired)"
        )
        if row["scale"] == 0.0:
            said.append(f"{where}: only the base was drawn.")
            continue
        said += [f"{where}: {words}" for words in _sorted_changes(row, line[0])]
        said += _copying(role, row) + _range(role, line)
    return said


def _sorted_changes(row: Row, base: Row) -> list[str]:
    """What got better, worse, or other, each in one sentence; and what cannot be told."""
    sorted_by: dict[str, list[str]] = {"gained": [], "lost": [], "also moved": [], "no change": []}
    for name, (meaning, better) in MEANINGS.items():
        if row[name] is None or name in COPYING:
            continue
        low, high = row[f"{name}_change_low"], row[f"{name}_change_high"]
        moved = f"{meaning} {number(name, base[name])} -> {number(name, row[name])}"
        if low is None or high is None:
            sorted_by["no change"].append(f"{moved} (too few pictures for an interval)")
        elif low <= 0.0 <= high:
            sorted_by["no change"].append(moved)
        else:
            grew = better * (1 if low > 0.0 else -1)
            kind = {1: "gained", -1: "lost", 0: "also moved"}[grew]
            change = interval(name, row, "_change")
            sorted_by[kind].append(f"{moved}, change {change}")
    names = {"no change": "no change to be told"}
    return [f"{names.get(kind, kind)}: {'; '.join(x)}." for kind, x in sorted_by.items() if x]


def _copying(role: str, row: Row) -> list[str]:
    said = []
    for space in ("features", "pixels"):
        name = f"copy_risk_{space}"
        if row[name] is None or row[f"{name}_low"] is None:
            continue
        copies = row[f"{name}_low"] > COPY_LEVEL and (
            row[f"{name}_change_low"] is not None and row[f"{name}_change_low"] > 0.0
        )
        if copies:
            said.append(
                f"It copies: in {space}, {interval(name, row)} of the pictures of {role} prompts "
                f"lie nearer to a training image than 95 % of unseen real images do "
                f"(the base: {number(name, row[name] - row[f'{name}_change'])})."
            )
    return said


def _range(role: str, line: Sequence[Row]) -> list[str]:
    """Up to which scale the asked subject is as often there as without the LoRA."""
    name = "asked_subject"
    if line[0][name] is None or role in ("instance",):
        return []
    kept = 0.0
    for row in line[1:]:
        high = row[f"{name}_change_high"]
        if high is None or high < 0.0:
            break
        kept = row["scale"]
    if kept == line[-1]["scale"]:
        return [f"The asked subject of {role} prompts is kept at every scale drawn."]
    return [
        f"The asked subject of {role} prompts is found as often as without the LoRA "
        f"up to scale {kept:g}, and measurably less often at the next."
    ]
