"""What cells are compared by: a column of the table, which direction is better, and how two rows
differ in it. Everything that decides takes one of these; FID unless something else is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ddim_core.decisions.row import CellRow, cell_name, score_digests, with_interval
from ddim_core.statistics.joint import Joint, joint
from ddim_core.statistics.paired import (
    PairedDifference,
    paired_difference,
    paired_difference_inf,
    uncorrected,
)

Decider = Literal[
    "fid", "fid_inf", "clip_score", "pick_score", "hpsv2", "image_reward", "aesthetic"
]


@dataclass(frozen=True)
class Measure:
    """A score of the table that cells can be compared by.

    Attributes:
        name: Of its column. Beside it stand `NAME_low`, `NAME_high` (95 %) and
            `NAME_leave_one_out` (without each group of images).
        title: For people.
        unit: What a number of it means.
        remedy: What gives a row its values.
        lower_is_better: Else higher.
        digits: Shown behind the point.
        corrected: The jackknife has freed the value of its bias, and the values without each group
            are those before that.
        unbiased: Name of the measure that takes its place where image counts differ between looks,
            if its own value moves with them.
        weighed: A network's weights make it what it is; their digests stand in `image_scores`.
    """

    name: Decider
    title: str
    unit: str
    remedy: str
    lower_is_better: bool = False
    digits: int = 3
    corrected: bool = False
    unbiased: Decider | None = None
    weighed: bool = False

    @property
    def extreme(self) -> str:
        """What the best value is called: the lowest, or the highest."""
        return "lowest" if self.lower_is_better else "highest"

    def is_known(self, row: CellRow) -> bool:
        """Tells whether a row has a value."""
        return getattr(row, self.name) is not None

    def value(self, row: CellRow) -> float:
        """Returns a row's value.

        Raises:
            ValueError: If it has none; says what gives it one.
        """
        found = getattr(row, self.name)
        if found is None:
            raise ValueError(
                f"{self.name} decides, and {cell_name(row)} of {row.checkpoint} (cell "
                f"{str(row.cell_digest)[:10]}) has none; {self.remedy}"
            )
        return float(found)

    def cost(self, row: CellRow) -> float:
        """A row's value turned so that less is better."""
        return self.value(row) if self.lower_is_better else -self.value(row)

    def bounds(self, row: CellRow) -> tuple[float | None, float | None]:
        """The ends of a row's own 95 % interval."""
        return getattr(row, f"{self.name}_low"), getattr(row, f"{self.name}_high")

    def ends(self, rows: Sequence[CellRow]) -> tuple[list[float], list[float]]:
        """The lower and upper ends of those rows that have intervals, for a picture: of a distance
        above 0, as a logarithmic axis wants."""
        found = [(low, high) for low, high in map(self.bounds, rows) if None not in (low, high)]
        least = 1e-3 if self.lower_is_better else -math.inf
        return [max(low or 0.0, least) for low, _ in found], [high or 0.0 for _, high in found]

    def leave_one_out(self, row: CellRow) -> list[float]:
        """A row's estimates without each group; empty where there are too few images for groups."""
        return getattr(row, f"{self.name}_leave_one_out") or []

    def group_sizes(self, row: CellRow) -> list[int]:
        """Images in each of these groups: of scores of images whole prompts, where these have
        several."""
        return (row.image_score_group_sizes if self.weighed else None) or row.group_sizes

    def shown(self, row: CellRow) -> str:
        """A row's value with its interval, in words."""
        return with_interval(self.value(row), *self.bounds(row), self.digits)

    def number(self, value: float) -> str:
        """A difference in the measure's own digits; two significant ones where these show 0."""
        text = f"{value:.{self.digits}f}"
        if float(text):
            return text
        return text.lstrip("-") if abs(value) < NOTHING else f"{value:.2g}"

    def worse_by(self, low: float, high: float) -> str:
        """An interval of how much worse a cell is, in words; 0 stands there only where it is 0."""
        return f"{self.number(low)} to {self.number(high)}"

    def signed(self, value: float) -> str:
        """The same, with its sign."""
        return ("+" if value >= 0.0 else "-") + self.number(abs(value))

    def has_intervals(self, rows: Sequence[CellRow]) -> bool:
        """Tells whether all rows have groups to leave out, so that they can be compared.

        Raises:
            ValueError: If a row has no value at all.
        """
        for row in rows:
            self.value(row)
        return all(len(self.leave_one_out(row)) > 1 for row in rows)

    def weights(self, row: CellRow) -> str | None:
        """The digest of the weights that gave a row its value; None of what takes none, and of
        rows that do not say."""
        return score_digests(row).get(self.name) if self.weighed else None

    def difference(self, a: CellRow, b: CellRow) -> PairedDifference:
        """a's value minus b's by their shared groups; the rows have to be comparable."""
        test = paired_difference_inf if self.corrected else paired_difference
        loo_a, loo_b = self.leave_one_out(a), self.leave_one_out(b)
        return test(loo_a, loo_b, self.value(a), self.value(b), self.group_sizes(a))

    def together(self, rows: Sequence[CellRow]) -> Joint:
        """The rows' values and how they scatter together; the rows have to be comparable. Less is
        better there, whatever the measure's direction."""
        sign = 1.0 if self.lower_is_better else -1.0
        left_out = [self.leave_one_out(row) for row in rows]
        values = [self.value(row) for row in rows]
        thetas = values
        if self.corrected:
            thetas = [uncorrected(value, loo, self.group_sizes(row))
                      for value, loo, row in zip(values, left_out, rows, strict=True)]  # fmt: skip
        return joint(
            [sign * value for value in values],
            [sign * theta for theta in thetas],
            [[sign * value for value in loo] for loo in left_out],
            self.group_sizes(rows[0]),
        )


DISTANCE = "unitless; compares at equal image count, extractor, preprocessing and reference"
NOTHING = 1e-9  # a smaller difference is rounding, and shown as 0
OF_IMAGES = "mean over the images; compares at equal weights and prompts"


def _of_images(name: Decider, title: str) -> Measure:
    remedy = f"score the grid again with {name} among its image scores"
    return Measure(name, title, OF_IMAGES, remedy, weighed=True)


FID = Measure(
    "fid", "FID", DISTANCE, "score it again with `ddim grid`",
    lower_is_better=True, digits=2, unbiased="fid_inf",
)  # fmt: skip
MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        FID,
        Measure(
            "fid_inf", "FID_inf", DISTANCE,
            "it takes more images than features beside each group: raise --n-images",
            lower_is_better=True, digits=2, corrected=True,
        ),
        _of_images("clip_score", "CLIPScore"),
        _of_images("pick_score", "PickScore"),
        _of_images("hpsv2", "HPSv2"),
        _of_images("image_reward", "ImageReward"),
        _of_images("aesthetic", "aesthetic score"),
    )
}  # fmt: skip


def measure_of(name: str) -> Measure:
    """Returns the measure of a name.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in MEASURES:
        raise ValueError(f"decide_by is {name!r}; it can be {', '.join(MEASURES)}")
    return MEASURES[name]
