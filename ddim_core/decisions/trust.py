"""When a score is not to be trusted, in sentences that stand beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ddim_core.decisions.row import CellRow, cell_name, with_interval
from ddim_core.statistics.duplicates import NEAR
from ddim_core.statistics.tails import lies_flat, rests_on_few

SURELY = 2.0  # half widths of a 95 % interval: many cells are looked at
NAMED = 5  # cells of a sentence; of more the others are counted


class Scored(Protocol):
    """What a score says of itself: a `CellScore`, or a row of the table."""

    @property
    def n_images(self) -> int | None: ...
    @property
    def n_reference(self) -> int | None: ...
    @property
    def n_features(self) -> int: ...
    @property
    def fid(self) -> float: ...
    @property
    def fid_inf(self) -> float | None: ...
    @property
    def fid_bias(self) -> float | None: ...
    @property
    def fid_population(self) -> float | None: ...
    @property
    def fid_population_low(self) -> float | None: ...
    @property
    def fid_population_high(self) -> float | None: ...
    @property
    def carried_by(self) -> float | None: ...
    @property
    def tail_index(self) -> float | None: ...
    @property
    def directions(self) -> float | None: ...
    @property
    def curved(self) -> float | None: ...
    @property
    def duplicates(self) -> int | None: ...
    @property
    def near_duplicates(self) -> int | None: ...
    @property
    def memorised(self) -> int | None: ...


@dataclass(frozen=True)
class Doubt:
    """One reason not to trust a score.

    Attributes:
        kind: What several scores may share.
        size: How grave it is, to compare within the kind.
        text: A sentence with the score's own numbers.
    """

    kind: str
    size: float
    text: str


def doubts(score: Scored) -> list[Doubt]:
    """Says why a score's intervals hold less than they say, or its value tells of something else.

    Args:
        score: With None in what is not known of it; that raises no doubt.
    """
    found = [_tails(score), _flat(score), *_duplicates(score), _few(score), _reference(score)]
    return [doubt for doubt in found if doubt]


def doubts_of(rows: Sequence[CellRow]) -> list[str]:
    """The doubts about rows of a grid, each kind told once, of the cell where it is gravest; of
    several alike the one with the lowest FID, in whatever order they come."""
    by_kind: dict[str, list[tuple[CellRow, Doubt]]] = {}
    for row in rows:
        for doubt in doubts(row):
            by_kind.setdefault(doubt.kind, []).append((row, doubt))
    said = []
    for told in by_kind.values():
        row, worst = max(told, key=lambda one: (one[1].size, -one[0].fid, cell_name(one[0])))
        if len(told) == len(rows) and len(rows) > 1:
            alike = len({doubt.size for _, doubt in told}) == 1
            where = f"In every cell; {'such as' if alike else 'most of all'} at {cell_name(row)}: "
        else:
            where = f"At {cell_name(row)}: "
        said.append(where + worst.text)
        others = [cell_name(other) for other, _ in told if other is not row]
        if others and len(told) < len(rows):
            more = f"; and {len(others) - NAMED} more" if len(others) > NAMED else ""
            said[-1] += f" Likewise, less so, at {'; '.join(others[:NAMED])}{more}."
    return said


def _tails(score: Scored) -> Doubt | None:
    carried, n, tail = score.carried_by, score.n_images, score.tail_index
    if carried is None or n is None or not rests_on_few(carried, n, tail):
        return None
    slow = "" if tail is None else f", by pulls of tail index {tail:.2f}"
    return Doubt(
        "tails",
        1.0 / carried,
        f"the spread rests on about {carried:.0f} of {n} images{slow} (heavy tails, outliers or a "
        "rare kind of image), so that the intervals of FID, FID_inf and KID may hold the truth far "
        "less often than in 95 of 100 cases; look at these images, or draw more.",
    )


def _flat(score: Scored) -> Doubt | None:
    directions, curved = score.directions, score.curved
    if directions is None or curved is None or not lies_flat(directions, curved):
        return None
    return Doubt(
        "flat",
        curved / directions,
        f"the images lie near the reference and spread over few directions of feature space (about "
        f"{directions:.1f}), as shares of a few kinds of image do. The distance then scatters like "
        "a square: the intervals of FID, FID_inf and KID may hold the truth far less often than in "
        "95 of 100 cases.",
    )


def _duplicates(score: Scored) -> list[Doubt]:
    found = []
    n, duplicates = score.n_images, score.duplicates or 0
    if duplicates:
        found.append(
            Doubt(
                "duplicates",
                duplicates,
                f"{duplicates} of {n} images equal an earlier one. The intervals and FID_inf take "
                "equal images for one; KID and paired tests do not.",
            )
        )
    if near := score.near_duplicates:
        found.append(
            Doubt(
                "near",
                near,
                f"{near} of {n} images lie within {NEAR:g} of the usual distance between real "
                "neighbours of another generated one: all but copies, which intervals take for "
                "independent images.",
            )
        )
    if score.memorised:
        found.append(
            Doubt(
                "memorised",
                score.memorised,
                f"{score.memorised} of {n} images lie as near to one of the real images: they may "
                "be memorised.",
            )
        )
    return found


def _few(score: Scored) -> Doubt | None:
    if score.fid_inf is not None or score.fid_bias is None:
        return None
    n, m, different = score.n_images, score.n_reference, ""
    if n is not None and score.duplicates:
        different = f", {n - score.duplicates} of them different,"
    against = "against this reference" if m is None else f"against {m} real ones"
    return Doubt(
        "few",
        score.fid_bias,
        f"FID {score.fid:.4g} is of {n} images{different} with {score.n_features} features: as "
        f"many images of a perfect model would have about {score.fid_bias:.4g} {against}. Its "
        "interval is that of this biased number; compare it at equal N alone.",
    )


def _reference(score: Scored) -> Doubt | None:
    m, d = score.n_reference, score.n_features
    if score.fid_population is None:
        if m is None or m > 2 * d:
            return None
        return Doubt(
            "reference",
            1.0 / m,
            f"the reference's {m} images are few for {d} features, and how much of FID is the "
            "reference's size cannot be told"
            + ("." if score.fid_inf is None else "; FID_inf corrects the generated side alone."),
        )
    high, low = score.fid_population_high, score.fid_population_low
    if score.fid_inf is None or high is None or score.fid_inf <= high:
        return None
    part = score.fid_inf - score.fid_population
    between = with_interval(score.fid_population, low, high)
    widest = score.fid_population + SURELY * (high - score.fid_population)
    if widest < 0.0:
        return Doubt(
            "dependent",
            -widest,
            f"FID_inf {score.fid_inf:.2f} is less than the {part:.2f} that independent images of "
            f"the real population would have to {m} of it: between the populations the distance "
            f"would be {between}, below 0 by more than twice its interval. So the images are not "
            "independent of this reference: the model was trained on it and has learned some by "
            "heart, or it drew for the reference's own captions, or both hold their classes in the "
            "same fixed shares. Score it on images that it has not seen, with their own prompts.",
        )
    share = f"{part:.2f} of FID_inf {score.fid_inf:.2f} are"
    if part > score.fid_inf:
        share = f"all of FID_inf {score.fid_inf:.2f} is"
    return Doubt(
        "reference",
        part,
        f"{share} the size of the reference ({m} images); "
        f"between the populations the distance is {between}.",
    )
