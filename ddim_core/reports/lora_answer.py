"""A ranking of LoRAs in, the answer out: which to ship, its gains and costs, what ails others."""

from __future__ import annotations

from collections.abc import Sequence

from ddim_core.lora.scoring.ranking import FAULTS, Bounds, Call, Ranked, Ranking
from ddim_core.lora.scoring.specs import PromptSet
from ddim_core.reports.lora_sentences import number

MOST_NAMED = 12
NEEDS = {
    "copies": "copies, for which a second image is needed",
    "off_prompt": "what is lost of the prompts, for which give --clip",
}


def answer(
    ranking: Ranking,
    asked: PromptSet,
    kind: str,
    call: Call | None = None,
    difference: Bounds | None = None,
    against: str = "",
) -> list[str]:
    """Says in sentences what a ranking comes to: the answer, then the verdict if there is one.

    Args:
        ranking: Of the candidates.
        asked: What was drawn.
        kind: `style` or `subject`.
        call, difference, against: The verdict: what, by how much, and against which file or folder.
    """
    said = [_first(ranking, asked, kind)]
    if call is not None and difference is not None:
        words = {"better": "better than", "worse": "worse than", "tied": "tied with"}
        said.append(
            f"Verdict: {words[call]} the best of {against}: its usable gain less that one's is "
            f"{bounds(difference)}."
        )
    said += _others(ranking)
    said += [
        f"{FAULTS[fault][0].upper()}{FAULTS[fault][1:]}: {'; '.join(_shortened(words))}."
        for fault, words in _faults(ranking).items()
    ]
    taken = ranking.first.candidate.measures
    missing = [words for name, words in NEEDS.items() if name not in taken]
    if missing:
        said.append(f"Not measured: {'; '.join(missing)}.")
    return said


def headline(ranking: Ranking) -> str:
    """What to ship, in a few words; the first sentence of `answer` begins so."""
    one = ranking.first
    if one.is_proven:
        return f"Ship {setting(one)}"
    return f"Ship none: no setting is proven to be of use; the best is {setting(one)}"


def setting(one: Ranked) -> str:
    """A candidate in words: its file, scale, and sampler where that is not the base's own."""
    of = one.candidate
    return f"{of.name} at {of.scale:g}" + ("" if of.sampler == "own" else f" by {of.sampler}")


def bounds(of: Bounds) -> str:
    """A change with its interval."""
    return f"{of.value:+.3f} [{of.low:+.3f}, {of.high:+.3f}]"


def share(one: Ranked, name: str) -> str:
    """A share of pictures, beside the base's; empty where it was not taken."""
    of = one.candidate
    if name not in of.measures:
        return ""
    return f"{number(name, of.measures[name].value)} (base {number(name, of.base[name].value)})"


def _first(ranking: Ranking, asked: PromptSet, kind: str) -> str:
    one = ranking.first
    shares = [
        f"{words} {told}"
        for name, words in (
            ("copies", "copies"),
            ("broken", "broken"),
            ("off_prompt", "off prompt"),
        )
        if (told := share(one, name))
    ]
    gain = (
        f"likeness to the {kind} {bounds(one.likeness)}, usable gain {bounds(one.gain)}, "
        f"{', '.join(shares)}"
    )
    overfit = ranking.overfit_from
    told = f"; overfit from {overfit} on" if overfit else ""
    n = len(ranking.ranked)
    of = f"all {n} settings" if n > 1 else "gain and likeness"
    drawn = (
        f"{_counted(len(asked.texts), 'picture')} of {_counted(len(asked.prompts), 'prompt')}; "
        f"95 % intervals hold for {of} together"
    )
    return f"{headline(ranking)}: {gain}{told} ({drawn})."


def _others(ranking: Ranking) -> list[str]:
    others = [one for one in ranking.files if one.candidate.place != ranking.first.candidate.place]
    if not others:
        return []
    tied = [setting(one) for one in others if one.is_tied]
    worse = [f"{setting(one)}, by {bounds(one.behind)}" for one in others if not one.is_tied]
    said = []
    if tied:
        said.append(f"Not to be told from it: {'; '.join(_shortened(tied))}.")
    if worse:
        said.append(f"Proven worse, each at its best: {'; '.join(_shortened(worse))}.")
    return said


def _faults(ranking: Ranking) -> dict[str, list[str]]:
    """By fault the files that have it at the first's setting, or at their best, with how much."""
    first = ranking.first.candidate
    shown: dict[int, Ranked] = {one.candidate.place: one for one in ranking.files}
    for one in ranking.ranked:
        of = one.candidate
        if (of.scale, of.sampler) == (first.scale, first.sampler):
            shown[of.place] = one
    found: dict[str, list[str]] = {}
    for place in sorted(shown):
        one = shown[place]
        for fault in one.faults:
            found.setdefault(fault, []).append(f"{setting(one)}, {share(one, fault)}")
    return {name: found[name] for name in FAULTS if name in found}


def _counted(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def _shortened(words: Sequence[str]) -> list[str]:
    more = len(words) - MOST_NAMED
    return [*words[:MOST_NAMED], *([f"and {more} more"] if more > 0 else [])]
