"""Features in shards that are read one at a time, seen as the rows of one matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddim_core.statistics.moments import check_features

BLOCK = 1024  # rows read at once: 16 MB in float64 at d = 2048


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """The rows [n, d] of a sequence of shards, which may load each shard when it is asked for.

    What reads it holds a few blocks, never all rows, so memory does not grow with n.

    Attributes:
        shards: Arrays [n_i, d], in order of image index.
        starts: [number of shards + 1] where each shard begins, and n.
        columns: d.
    """

    shards: Sequence[NDArray[Any]]
    starts: tuple[int, ...]
    columns: int

    @classmethod
    def of(cls, shards: Sequence[NDArray[Any]], name: str = "features") -> FeatureRows:
        """Looks at every shard once.

        Raises:
            ValueError: If there is none, one is empty or not 2-D, the columns differ, or a number
                is not finite.
        """
        if not len(shards):
            raise ValueError(f"{name} has no shard; give at least 1")
        starts, columns = [0], 0
        for i in range(len(shards)):
            rows = check_features(shards[i], name)
            if i and rows.shape[1] != columns:
                raise ValueError(
                    f"{name} has shards of {columns} and {rows.shape[1]} columns; they must agree"
                )
            starts.append(starts[-1] + len(rows))
            columns = rows.shape[1]
        return cls(shards, tuple(starts), columns)

    @classmethod
    def of_array(cls, x: ArrayLike, name: str = "features") -> FeatureRows:
        """Takes an array [n, d] as one shard; errors as `of`."""
        return cls.of([np.asarray(x)], name)

    def __len__(self) -> int:
        return self.starts[-1]

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Returns rows start..stop - 1, a view where they lie in one shard."""
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        parts = []
        while first < len(self.shards) and self.starts[first] < stop:
            begin = self.starts[first]
            parts.append(self.shards[first][max(start - begin, 0) : stop - begin])
            first += 1
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def take(self, chosen: NDArray[np.intp]) -> NDArray[Any]:
        """Returns the rows of some places, in their order; each shard is read once."""
        home = np.searchsorted(self.starts, chosen, side="right") - 1
        rows: NDArray[Any] | None = None
        for shard in np.unique(home):
            mine = home == shard
            found = self.shards[shard][chosen[mine] - self.starts[shard]]
            if rows is None:
                rows = np.empty((len(chosen), self.columns), dtype=found.dtype)
            rows[mine] = found
        return np.empty((0, self.columns)) if rows is None else rows

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yields the rows in order, at most `size` at once, each with its place."""
        for place in places(len(self), size):
            yield place, self.read(place.start, place.stop)


def places(n: int, size: int = BLOCK) -> list[slice]:
    """Cuts n rows into nearly equal pieces of at most `size`."""
    edges = np.linspace(0, n, -(-n // size) + 1).astype(int)
    return [slice(int(start), int(stop)) for start, stop in pairwise(edges)]


def check_columns(a: FeatureRows, b: FeatureRows) -> None:
    """Refuses two sets that do not come from one extractor."""
    if a.columns != b.columns:
        raise ValueError(f"features have {a.columns} and {b.columns} columns; they must agree")
