"""Names of a folder's LoRA files in, what training each is from and its epoch or step out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from ddim_core.safe_files.claims.tensor_headers import tensors_in

# NAME-000006 and NAME-step00000500 (sd-scripts), NAME_000000500 (ai-toolkit), checkpoint-500.
NUMBERED = re.compile(r"(?P<series>.*?)(?:^|[-_])(?P<word>step|epoch|e)?[-_]?(?P<number>\d{1,12})")
PADDED = 6  # digits that no trainer goes below; a resolution or a version has fewer
CHECKPOINT = "checkpoint"
STEPS = "ss_steps"  # in a header of sd-scripts'


@dataclass(frozen=True)
class Numbered:
    """What a file's name says.

    Attributes:
        series: The name without the number: of one training.
        number: Epoch or step; None of the last, which trainers do not number.
        by_steps: Whether the name says that it is a step.
    """

    series: str
    number: int | None
    by_steps: bool = False


def numbered(names: Sequence[str]) -> dict[str, Numbered]:
    """Reads names of files that lie in one folder.

    A number at a name's end is an epoch or a step where a trainer would write it so (six digits or
    more, or after `step`, `epoch`, `e` or `checkpoint`), or where several names differ in it alone.
    A name that is the series of others is their last.
    """
    found = {name: _read(name) for name in names}
    several = Counter(one.series for one, _ in found.values() if one.number is not None)
    sure = {one.series for one, as_trainers_do in found.values() if as_trainers_do}
    return {
        name: one
        if name not in sure and (as_trainers_do or several[one.series] > 1)
        else Numbered(name, None)
        for name, (one, as_trainers_do) in found.items()
    }


def epochs_of(names: Mapping[Path, str]) -> dict[Path, Numbered]:
    """Reads the names of files that lie in one folder; where a series has epochs and steps, all
    are given their steps.

    Args:
        names: The name of each.

    Raises:
        ValueError: If a series has epochs and steps, and a header does not say after how many
            steps (`ss_steps`).
    """
    read = numbered(list(names.values()))
    found = {path: read[name] for path, name in names.items()}
    for series in {one.series for one in found.values()}:
        of = {p: one for p, one in found.items() if one.series == series and one.number is not None}
        if len({one.by_steps for one in of.values()}) > 1:
            found |= {path: Numbered(series, _steps(path, names[path]), True) for path in of}
    return found


def _read(name: str) -> tuple[Numbered, bool]:
    told = NUMBERED.fullmatch(name)
    if told is None:
        return Numbered(name, None), False
    one = Numbered(told["series"], int(told["number"]), told["word"] == "step")
    as_trainers_do = told["word"] or len(told["number"]) >= PADDED or one.series == CHECKPOINT
    return one, bool(as_trainers_do)


def _steps(path: Path, name: str) -> int:
    try:
        with tensors_in(path, "np") as content:
            told = (content.metadata() or {}).get(STEPS, "")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{name} is no whole safetensors file: {error}") from error
    if not re.fullmatch(r"[0-9]{1,12}", told):
        raise ValueError(
            f"epochs and steps of one LoRA lie together, and the header of {name} has no {STEPS} "
            "to order them by; give the epochs alone, or the steps"
        )
    return int(told)
