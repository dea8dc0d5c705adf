"""What tuning bought, in sentences, and where the timesteps lie."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from ddim_core.decisions.bought import Bought, are_alike, bought
from ddim_core.decisions.row import CellRow, cell_name, with_interval
from ddim_core.reports.asked_for import read_asked_for

AYS = {
    "SD 1.5": (999, 850, 736, 645, 545, 455, 343, 233, 124, 24),
    "SDXL": (999, 845, 730, 587, 443, 310, 193, 116, 53, 13),
}
"""Timesteps of Align Your Steps (Sabour et al. 2024, arXiv:2404.14507) as NVIDIA published them."""
HOW = {"worse": "is worse than", "better": "is better than", "tied": "cannot be told from"}
RHO = 7.0  # of Karras' spacing
SHIFT = 3.0  # of SD3's
STILL = 0.1  # of the distance: a list of another checkpoint that is no farther still serves

Level = Callable[[float], float]
"""The noise level of a timestep: noise over signal, of a flow the share of noise."""
Pairs = list[tuple[float, float]]
Tuning = Collection[tuple[str, float, str | None]]
"""Samplers with the lists that were found, each with the guidance that it was tuned at, and the
noise levels between which that holds, as in a row; empty for all; None where these were not
searched."""


@dataclass(frozen=True)
class Course:
    """Where a run asks the network.

    Attributes:
        name: For people.
        timesteps: One for each call.
        tuned: It was found here.
    """

    name: str
    timesteps: tuple[float, ...]
    tuned: bool


def read_bought(rows: Sequence[CellRow], tuned: Tuning, margin: float) -> list[str]:
    """Says what each tuned cell bought beside the stock ones of its grid.

    Args:
        rows: Of the proof's grid.
        tuned: What was tuned.
        margin: A difference of FID that does not count.
    """
    found = _bought(rows, tuned, margin)
    if found is None:
        return ["There are too few images a cell for intervals, and so for any proof."]
    return [_sentences(one, tuned, margin) for one in found]


def headline(rows: Sequence[CellRow], tuned: Tuning, margin: float) -> str:
    """Says shortly how many tuned settings are proven better than the stock ones of as many network
    calls, and which has the lowest FID; empty where nothing is proven or disproven.

    Args:
        rows, tuned, margin: As of `read_bought`.
    """
    found = _bought(rows, tuned, margin)
    if not found:
        return ""
    proven = [one for one in found if one.proven]
    best = min(proven or found, key=lambda one: one.row.fid).row
    if len(found) == 1:
        who, whose = f"The tuned setting is {'' if proven else 'not '}", "its FID"
    else:
        number = f"{len(proven) or 'None'} of {len(found)}"
        who = f"{number} tuned settings {'is' if len(proven) < 2 else 'are'} "
        whose = f"the lowest FID of {'these' if proven else 'them'}"
    dearer = any(one.rival is not None and one.rival.nfe > one.row.nfe for one in found)
    more = " or the next more" if dearer else ""
    return (
        f"{who}proven better than every stock one of as many network calls{more}; {whose} is "
        f"{with_interval(best.fid, best.fid_low, best.fid_high)}, at {best.nfe} calls, of "
        f"{short(best, tuned)}."
    )


def _bought(rows: Sequence[CellRow], tuned: Tuning, margin: float) -> list[Bought] | None:
    """None where there are too few images for intervals; nothing without cells on both sides."""
    ours = [row for row in rows if is_tuned(row, tuned)]
    stock = _stock(rows, tuned)
    if not ours or not stock:
        return []
    if any(len(row.fid_leave_one_out) < 2 for row in (*ours, *stock)):
        return None
    return bought(ours, stock, margin)


def _stock(rows: Sequence[CellRow], tuned: Tuning) -> list[CellRow]:
    lists = {sampler for sampler, *_ in tuned}
    searched = any(levels is not None for *_, levels in tuned)  # then levels are no stock's
    return [
        row for row in rows if row.sampler not in lists and not (searched and row.guidance_interval)
    ]


def is_tuned(row: CellRow, tuned: Tuning) -> bool:
    """Tells whether a cell has a list that was found here, at the guidance it was tuned at."""
    return any(
        (row.sampler, row.guidance_scale) == (sampler, scale)
        and levels in (None, row.guidance_interval or "")
        for sampler, scale, levels in tuned
    )


def read_heed(rows: Sequence[CellRow], tuned: Tuning) -> list[str]:
    """Says whether tuned cells' images show what was asked for, each beside the stock cell of its
    guidance with the most network calls (of several the one with the lowest FID).

    Args:
        rows, tuned: As of `read_bought`.
    """
    pairs = []
    for row in rows:
        alike = [other for other in _stock(rows, tuned) if are_alike(row, other)]
        if alike and is_tuned(row, tuned):
            pairs.append((row, min(alike, key=lambda other: (-other.nfe, other.fid))))
    return read_asked_for(pairs, lambda row: short(row, tuned))


def read_narrowed(
    name: str, levels: tuple[float, float] | None, fid: float, gain: tuple[float, float, float]
) -> str:
    """Says between which noise levels a setting is guided, and what that bought.

    Args:
        name: Of the setting.
        levels: Low and high; None where guidance at all of them is best.
        fid: On fresh images.
        gain: FID of the list found for guidance at all levels minus it, with its 95 % interval.
    """
    if levels is None:
        return f"{name}: of all noise levels to guide between none are better than all."
    mean, low, high = gain
    return (
        f"{name}: guided at noise levels from {levels[0]:g} to {levels[1]:g} alone it has FID "
        f"{fid:.3g} on fresh images, {abs(mean):.3g} {'less' if mean > 0.0 else 'more'} than the "
        f"list found for guidance at all levels (difference {-mean:+.3g} [{-high:+.3g}, "
        f"{-low:+.3g}])."
    )


def read_known(sampler: str, mean: float, low: float, high: float, worse: str) -> str:
    """Says whether a list that was found on another checkpoint still serves.

    Args:
        sampler: With the list.
        mean, low, high: How much worse it is than the list found here, as a share of the latter's
            figure, with its 95 % interval.
        worse: What that is: farther from the long run, or worse by FID.
    """
    far = f"{100 * mean:+.0f} % [{100 * low:+.0f}, {100 * high:+.0f}] {worse}"
    if high < STILL:
        return f"{sampler}, found elsewhere, still serves: {far}."
    if low > STILL:
        return f"{sampler}, found elsewhere, serves no longer: {far}."
    return f"Whether {sampler}, found elsewhere, still serves is open: {far}."


def short(row: CellRow, tuned: Tuning) -> str:
    """Names a cell for people; of a list that was found here only that, since its numbers stand
    elsewhere."""
    name = cell_name(row)
    if row.sampler not in {sampler for sampler, *_ in tuned}:
        return name
    word = "timesteps=[" if "timesteps=[" in name else "sigmas=["
    head, _, tail = name.partition(word)
    how = "tuned" if is_tuned(row, tuned) else "tuned at another guidance"
    return f"{head.rstrip('?&')}, {how}{tail.partition(']')[2]}"


def _sentences(one: Bought, tuned: Tuning, margin: float) -> str:
    row = one.row
    said = [f"{short(row, tuned)}: FID {with_interval(row.fid, row.fid_low, row.fid_high)}."]
    if one.rival is None or one.against is None or one.p_proven is None:
        said.append(f"No stock setting of {row.nfe} network calls stands beside it.")
    else:
        gap = one.against
        dearer = "" if one.rival.nfe == row.nfe else f" of {one.rival.nfe}"
        rival = with_interval(one.rival.fid, one.rival.fid_low, one.rival.fid_high)
        apart = f"a difference of {gap.value:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]"
        if one.proven:
            said.append(
                f"At {row.nfe} network calls it is better than every stock setting{dearer}, "
                f"{_p(one.p_proven)}; the best of them, {cell_name(one.rival)}, has {rival}, "
                f"{apart}."
            )
        else:
            more = "" if gap.verdict != "better" else ", but not than every other of them"
            said.append(
                f"At {row.nfe} network calls it {HOW[gap.verdict]} the best stock setting"
                f"{dearer}{more}: {cell_name(one.rival)} has {rival}, {apart}, "
                f"{_p(gap.p_adjusted)}."
            )
    if one.matched is not None and one.p_matched is not None:
        said.append(
            f"{row.nfe} calls tuned are not worse than {one.matched.nfe} of the best stock setting "
            f"({cell_name(one.matched)}, "
            f"{with_interval(one.matched.fid, one.matched.fid_low, one.matched.fid_high)}) by more "
            f"than {margin:g}, {_p(one.p_matched)}."
        )
    return " ".join(said)


def _p(value: float) -> str:
    return f"p = {value:.2g}" if value >= 1e-4 else "p < 0.0001"


def usual_courses(is_flow: bool, top: float, level: Level) -> dict[str, Pairs]:
    """Returns where others ask the network, by their names, as `placed`: uniform in the timestep;
    of a diffusion model Karras' (arXiv:2206.00364, eq. 5) between its own ends and AYS's lists; of
    a flow a shift of 3, as SD3 has it (Esser et al. 2024, arXiv:2403.03206).

    Args:
        is_flow: The model is a flow.
        top: Its noisiest timestep.
        level: Of its timesteps.
    """
    shares = [i / 40 for i in range(41)]
    uniform = [(share, level((1.0 - share) * top)) for share in shares]
    if is_flow:
        shifted = [(x, SHIFT * y / (1.0 + (SHIFT - 1.0) * y)) for x, y in uniform]
        return {"uniform": uniform, f"shift {SHIFT:g}": shifted}
    high, low = level(top) ** (1.0 / RHO), level(0.0) ** (1.0 / RHO)
    karras = [(share, (high + share * (low - high)) ** RHO) for share in shares]
    found = {"uniform": uniform, f"Karras, rho = {RHO:g}": karras}
    here = {name: [t * top / 999.0 for t in steps] for name, steps in AYS.items()}
    return found | {f"AYS, {name}": placed(steps, level) for name, steps in here.items()}


def placed(timesteps: Sequence[float], level: Level) -> Pairs:
    """Returns pairs of the place in a run, 0 to 1, and the noise level there."""
    last = max(1, len(timesteps) - 1)
    return [(i / last, level(t)) for i, t in enumerate(timesteps)]
