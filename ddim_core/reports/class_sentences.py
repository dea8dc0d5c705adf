"""What the scores of each class say: which is worst, and whether all come as often as asked."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ddim_core.scores.per_class import LEVEL, ClassScore, PerClass

NAMED = 6  # classes of a sentence; of more the others are counted
MOST_SHOWN = 20  # in a table


def classes_said(scored: PerClass) -> list[str]:
    """What the scores of each class say: the worst one, and the shares of all."""
    said = []
    worst, without = scored.worst(), [c for c in scored.classes if c.fid is None]
    if worst is not None and worst.scored.fid is not None:
        fid, name = worst.scored.fid, _name(worst.scored)
        said.append(
            (
                f"{name} is the worst of {worst.n_classes} classes"
                if worst.is_worse
                else f"none of {worst.n_classes} classes is proven worse than the others; {name} "
                "comes last"
            )
            + f": FID {fid.fid:.2f} [{fid.low:.2f}, {fid.high:.2f}], bias {fid.bias:.2f}; "
            f"without that, {worst.gap:+.2f} [{worst.low:+.2f}, {worst.high:+.2f}] "
            "from the mean of the others, "
            f"p = {worst.p_adjusted:.2g} corrected for {worst.n_classes} comparisons."
        )
    if without:
        which = "every class" if len(without) == len(scored.classes) else _classes(without)
        said.append(f"FID is null of {which}: {scored.why_not(without[0])}.")
    p_value = scored.shares_p_value()
    shares = [(c, s) for c in scored.classes if (s := scored.share(c)) is not None]
    if p_value is None or not shares:
        return said
    judge = "the classifier finds the classes" if scored.asked else "the classes come"
    wanted = "that were asked for" if scored.asked else "of the reference"
    if p_value >= LEVEL:
        return [*said, f"{judge} in the shares {wanted} (chi-square, p = {p_value:.2g})."]
    most, (share, low, high) = max(
        shares, key=lambda found: abs(found[1][0] - scored.wanted_share(found[0]))
    )
    return [
        *said,
        f"{judge} in other shares than those {wanted} (chi-square, p = {p_value:.2g}): most apart "
        f"is {_name(most)}, {100 * share:.1f} % [{100 * low:.1f}, {100 * high:.1f}] instead of "
        f"{100 * scored.wanted_share(most):.1f} %.",
    ]


def shown_classes(scored: PerClass) -> list[ClassScore]:
    """Returns the classes for a table: all, or of many those that stand out most, by FID less its
    bias and then by how far their share is from the one wanted; in the order of their labels."""
    if len(scored.classes) <= MOST_SHOWN:
        return list(scored.classes)

    def stands_out(one: ClassScore) -> tuple[float, float]:
        share = scored.share(one)
        apart = abs(share[0] - scored.wanted_share(one)) if share else 0.0
        return (one.fid.fid - one.fid.bias if one.fid else -math.inf), apart

    chosen = sorted(scored.classes, key=stands_out, reverse=True)[:MOST_SHOWN]
    return [one for one in scored.classes if one in chosen]


def _name(scored: ClassScore) -> str:
    """A class's name, which is the data's: in a code span, where Markdown is not read."""
    return f"`{scored.name.replace('`', '')}`"


def _classes(scored: Sequence[ClassScore]) -> str:
    """Names of classes, or of the first of many."""
    more = len(scored) - NAMED
    named = ", ".join(map(_name, scored[:NAMED]))
    return f"class {named}" + (f" and {more} more" if more > 0 else "")
