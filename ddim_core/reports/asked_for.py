"""Whether a setting's images show what was asked for, which FID does not tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ddim_core.decisions.compare import LEVEL
from ddim_core.decisions.measure import MEASURES, Measure
from ddim_core.decisions.row import CellRow
from ddim_core.statistics.holm import holm
from ddim_core.statistics.paired import PairedDifference

OF_PROMPTS = ("clip_score", "pick_score", "hpsv2", "image_reward")
"""Scores that look at an image and its prompt; higher is better."""


def share_of(row: CellRow) -> tuple[float, float, float]:
    """The share of a judged row's images in which the class asked for is found, with its 95 %
    interval."""
    return row.class_accuracy or 0.0, row.class_accuracy_low or 0.0, row.class_accuracy_high or 0.0


def share_text(row: CellRow) -> str:
    """The same in words."""
    share, low, high = (100.0 * part for part in share_of(row))
    return f"{share:.1f} % [{low:.1f}, {high:.1f}]"


def read_asked_for(
    pairs: Sequence[tuple[CellRow, CellRow]], named: Callable[[CellRow], str]
) -> list[str]:
    """Says by each score that tells it which cells' images show what was asked for less, or more,
    than those of another cell each; nothing where neither classes nor prompts were scored. Paired
    tests, all corrected together (Holm); shares of classes by their intervals.

    Args:
        pairs: Rows of a cell and of another one, of the same prompts, noise and protocol.
        named: Names a row for people.
    """
    tested = {name: [pair for pair in pairs if _has(MEASURES[name], pair)] for name in OF_PROMPTS}
    gaps = [MEASURES[name].difference(*pair) for name, of in tested.items() for pair in of]
    told = zip(gaps, holm([gap.p_value for gap in gaps]) if gaps else [], strict=True)
    judged = [pair for pair in pairs if all(row.class_accuracy is not None for row in pair)]
    said = [_by_class(*pair, named) for pair in judged]
    found = _together(said, "the share of images that show the class asked for")
    for name, of in tested.items():
        measure = MEASURES[name]
        said = [_by_prompt(measure, *pair, *next(told), named) for pair in of]
        found += _together(said, measure.title)
    return found


def _together(said: Sequence[str | None], score: str) -> list[str]:
    """What was said of cells, None where they cannot be told apart: that is said once."""
    apart = [sentence for sentence in said if sentence]
    alike, other = len(said) - len(apart), "other " if apart else ""
    if alike:
        settings = f"{alike} {other}tuned settings" if alike > 1 else f"the {other}tuned setting"
        apart.append(
            f"Of {settings} {score} cannot be told from that of the stock setting with the most "
            "network calls."
        )
    return apart


def _has(measure: Measure, pair: tuple[CellRow, CellRow]) -> bool:
    """Tells whether both rows have a score, by the same weights, with groups to compare by."""
    known = all(map(measure.is_known, pair)) and measure.has_intervals(pair)
    return known and measure.weights(pair[0]) == measure.weights(pair[1])


def _by_class(row: CellRow, other: CellRow, named: Callable[[CellRow], str]) -> str | None:
    ours, theirs = share_of(row), share_of(other)
    if ours[2] >= theirs[1] and ours[1] <= theirs[2]:
        return None
    how = "fewer" if ours[0] < theirs[0] else "more"
    return (
        f"{named(row)} shows the class asked for in {share_text(row)} of its images, "
        f"{named(other)} in {share_text(other)}: {how}, beyond both intervals."
    )


def _by_prompt(
    measure: Measure, row: CellRow, other: CellRow, gap: PairedDifference, p: float,
    named: Callable[[CellRow], str],
) -> str | None:  # fmt: skip
    if p >= LEVEL:
        return None
    how = "less" if gap.value < 0.0 else "more"
    return (
        f"{named(row)} heeds the prompts {how} by {measure.title}: {measure.shown(row)}, "
        f"where {named(other)} has {measure.shown(other)}; a difference of "
        f"{measure.signed(gap.value)} [{measure.signed(gap.low)}, {measure.signed(gap.high)}]."
    )
