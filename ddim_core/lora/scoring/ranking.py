"""Which of several LoRAs to ship, at which scale and by which sampler; and what ails the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ddim_core.lora.scoring.scorecard import COPY_LEVEL, Measure, change, share_change
from ddim_core.statistics.joint import joint

LEVEL = 0.05
GAIN, LIKENESS = "usable_gain", "likeness_gain"
FAULTS = {
    "copies": "it copies its training images",
    "broken": "its pictures dissolve",
    "off_prompt": "it does not show what is asked for",
}
DECIDING = (GAIN, LIKENESS, *FAULTS)
Call = Literal["better", "worse", "tied"]


@dataclass(frozen=True)
class Candidate:
    """A LoRA file at one scale, drawn by one sampler.

    Attributes:
        name: Of the file, for people.
        number: Epoch or step; None of the last.
        place: Among the files; those of one series in the order in which they were trained.
        series: The training that the file is from; files of others were not trained for longer.
        scale: Of the LoRA.
        sampler: By the project's name.
        measures: Those of `DECIDING` that were taken of its pictures.
        base: The same of the base's pictures of the same noise by the same sampler.
    """

    name: str
    number: int | None
    place: int
    series: str
    scale: float
    sampler: str
    measures: Mapping[str, Measure]
    base: Mapping[str, Measure]


@dataclass(frozen=True)
class Bounds:
    """A number with an interval that holds with 95 % together with others of its ranking: those of
    all gains and likenesses, or those of all faults."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Ranked:
    """A candidate in its place.

    Attributes:
        candidate: It.
        gain: Its usable gain, over the base's 0.
        behind: What it lies behind the first; above 0 from end to end it is proven worse.
        likeness: Its likeness less the base's.
        faults: By the name of a measure, the share of its pictures more than the base's, or than
            the first's, where it is proven to be more.
        overfit: It was trained for longer than the first of the ranking, in the same series, and
            copies more than the first or the base, or is proven worse with no less likeness.
    """

    candidate: Candidate
    gain: Bounds
    behind: Bounds
    likeness: Bounds
    faults: Mapping[str, Bounds]
    overfit: bool

    @property
    def is_tied(self) -> bool:
        """Whether it cannot be told from the first."""
        return self.behind.low <= 0.0

    @property
    def is_proven(self) -> bool:
        """Whether it is proven to be better than no LoRA."""
        return self.gain.low > 0.0


@dataclass(frozen=True)
class Ranking:
    """Candidates, the largest usable gain first.

    Attributes:
        ranked: All of them.
        overfit_from: The name of the first file from which on all later ones of the first's series
            are overfit, at the first's scale and sampler; None where there is none.
    """

    ranked: tuple[Ranked, ...]
    overfit_from: str | None

    @property
    def first(self) -> Ranked:
        return self.ranked[0]

    @property
    def files(self) -> tuple[Ranked, ...]:
        """Every file at its best setting, by place."""
        best: dict[int, Ranked] = {}
        for one in self.ranked:
            best.setdefault(one.candidate.place, one)
        return tuple(best[place] for place in sorted(best))


def rank(candidates: Sequence[Candidate]) -> Ranking:
    """Ranks candidates by what they gain in likeness in pictures that can be used.

    All intervals of gains, of what lies behind the first, and of likenesses hold together with 95 %
    (Bonferroni over the gains of all pairs, the base among them, because the first was chosen by
    the same pictures, and over all likenesses). Those of all faults hold with 95 % among
    themselves.

    Args:
        candidates: Drawn for the same prompts from the same noise.

    Raises:
        ValueError: If there is none, or too few pictures for an interval.
    """
    if not candidates:
        raise ValueError("there is no candidate to rank; give at least one LoRA file")
    n = len(candidates)
    n_together = n * (n + 1) // 2 + n
    gains, likenesses = (_together(candidates, name, n_together) for name in (GAIN, LIKENESS))
    order = sorted(range(n), key=lambda i: -gains[0][i].value)
    best = order[0]
    behind = gains[1](best)
    n_faults = 2 * sum(name in FAULTS for name in candidates[0].measures) * n
    found = []
    for i in order:
        one = candidates[i]
        faults = _faults(one, candidates[best], n_faults)
        longer = _is_longer(one, candidates[best])
        as_like = likenesses[0][i].value >= likenesses[0][best].value
        overfit = longer and ((behind[i].low > 0.0 and as_like) or "copies" in faults)
        found.append(Ranked(one, gains[0][i], behind[i], likenesses[0][i], faults, overfit))
    return Ranking(tuple(found), _overfit_from(found))


def verdict(ranking: Ranking, new: int) -> tuple[Call, Bounds]:
    """Judges the best of the files before place `new` against the best of those from it on.

    Returns:
        Whether the latter are better, and by how much, from the ranking's own intervals.
    """
    ours = next(one for one in ranking.ranked if one.candidate.place >= new)
    theirs = next(one for one in ranking.ranked if one.candidate.place < new)
    # One of the two is the first: nothing ranks before the best of its own side.
    if ours is ranking.first:
        found = theirs.behind
    else:
        found = Bounds(-ours.behind.value, -ours.behind.high, -ours.behind.low)
    call: Call = "better" if found.low > 0.0 else "worse" if found.high < 0.0 else "tied"
    return call, found


def _together(
    candidates: Sequence[Candidate], name: str, n_together: int
) -> tuple[list[Bounds], Callable[[int], list[Bounds]]]:
    """Bounds of a measure over the base's, and a function of what lies behind one of them."""
    taken = [one.measures[name] for one in candidates]
    zero = [0.0] * len(taken[0].loo)
    if len(zero) < 2:
        raise ValueError(f"{sum(taken[0].sizes)} pictures have no interval; draw at least 2")
    values = [*(measure.value for measure in taken), 0.0]
    found = joint(values, values, [*(measure.loo for measure in taken), zero], taken[0].sizes)
    n = len(values)
    reach = found.reach(n_together, LEVEL)

    def against(j: int) -> list[Bounds]:
        half = reach[:, j]
        return [
            Bounds(values[i] - values[j], values[i] - values[j] - half[i],
                   values[i] - values[j] + half[i])
            for i in range(n - 1)
        ]  # fmt: skip

    def behind(j: int) -> list[Bounds]:
        return [Bounds(-one.value, -one.high, -one.low) for one in against(j)]

    return against(n - 1), behind


def _faults(one: Candidate, first: Candidate, n_tests: int) -> dict[str, Bounds]:
    faults: dict[str, Bounds] = {}
    for name in (name for name in FAULTS if name in one.measures):
        mine = one.measures[name]
        for other in (first.measures[name], one.base[name]):
            found = change(mine, other)
            if found is None or mine.value <= COPY_LEVEL:
                continue
            paired = found.interval(n_tests, len(mine.loo))
            floor = share_change(mine, other, LEVEL / n_tests)
            low, high = min(paired[0], floor[0]), max(paired[1], floor[1])
            if low > 0.0:
                faults[name] = Bounds(found.value, low, min(high, 1.0))
    return faults


def _is_longer(one: Candidate, than: Candidate) -> bool:
    return one.series == than.series and one.place > than.place


def _overfit_from(found: Sequence[Ranked]) -> str | None:
    best = found[0].candidate
    later = sorted(
        (one for one in found
         if _is_longer(one.candidate, best)
         and (one.candidate.scale, one.candidate.sampler) == (best.scale, best.sampler)),
        key=lambda one: one.candidate.place,
    )  # fmt: skip
    healthy = [i for i, one in enumerate(later) if not one.overfit]
    begin = healthy[-1] + 1 if healthy else 0
    return later[begin].candidate.name if begin < len(later) else None
