"""Float64 in bulk: NumPy on a CPU, torch on a card.

What looks at all pairs of images, or takes large matrices apart, asks one of these for whatever the
two libraries do not write alike. An array stays where it was put until it is asked back.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from os import cpu_count
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ddim_core.common.late import late
from ddim_core.devices.names import is_card

if TYPE_CHECKING:
    import torch
    from scipy import linalg
else:
    linalg = late("scipy.linalg")
    torch = late("torch")

Floats = NDArray[np.float64]


class Float64(Protocol):
    """What is asked of either library; `x` are matrices that were put where it computes."""

    @property
    def on_card(self) -> bool: ...

    @property
    def at_once(self) -> int:
        """Large matrices that are taken apart at the same time."""

    def __hash__(self) -> int: ...

    def put(self, x: NDArray[Any]) -> Any:
        """Puts an array, of any type, where this computes."""

    def got(self, x: Any) -> NDArray[Any]:
        """Returns an array from there."""

    def exp(self, x: Any) -> Any: ...

    def fill_diagonal(self, x: Any, value: float) -> None: ...

    def dot(self, x: Any, y: Any) -> float:
        """The sum of all products of entries that stand in the same place."""

    def column_dots(self, x: Any, y: Any) -> Any:
        """The same for each column."""

    def row_squares(self, x: Any) -> Any:
        """The sum of the squares of each row."""

    def sums(self, x: Any, cuts: Sequence[int], axis: int) -> Any:
        """The sums of consecutive rows (axis 0) or columns (axis 1), which begin at `cuts`."""

    def least(self, x: Any, axis: int) -> Floats:
        """The smallest entry along an axis."""

    def smallest(self, x: Any, keep: int) -> Floats:
        """The `keep` smallest entries of each row, or all if it has fewer, in any order."""

    def zero_within(self, x: Any, rounding: float, left: Any, right: Any) -> None:
        """Sets x[i, j] to 0 where it is not above rounding (left[i] + right[j]); few are."""

    def eigenvalues(self, x: Any) -> Floats:
        """Of symmetric matrices [..., r, r], ascending."""

    def eigenvectors(self, x: Any) -> tuple[Floats, Floats]:
        """The eigenvalues of one, and its eigenvectors as columns."""

    def singular_values(self, x: Any) -> Floats:
        """Of a matrix, descending."""


@dataclass(frozen=True)
class OnCpu:
    """NumPy."""

    on_card = False
    at_once = 1

    def put(self, x: NDArray[Any]) -> Any:
        return x

    def got(self, x: Any) -> NDArray[Any]:
        return np.asarray(x)

    def exp(self, x: Any) -> Any:
        return np.exp(x)

    def fill_diagonal(self, x: Any, value: float) -> None:
        np.fill_diagonal(x, value)

    def dot(self, x: Any, y: Any) -> float:
        return float(np.vdot(x, y))

    def column_dots(self, x: Any, y: Any) -> Any:
        return np.einsum("is,is->s", x, y)

    def row_squares(self, x: Any) -> Any:
        return np.einsum("id,id->i", x, x)

    def sums(self, x: Any, cuts: Sequence[int], axis: int) -> Any:
        return np.add.reduceat(x, cuts, axis=axis)

    def least(self, x: Any, axis: int) -> Floats:
        least: Floats = x.min(axis=axis)
        return least

    def smallest(self, x: Any, keep: int) -> Floats:
        few: Floats = np.array(x, order="C")  # a column is read ten times as slowly as a row
        if few.shape[1] > keep:
            few.partition(keep - 1, axis=1)
        return few[:, :keep]

    def zero_within(self, x: Any, rounding: float, left: Any, right: Any) -> None:
        lines = np.flatnonzero(x.min(axis=1) <= rounding * (left + right.max()))
        if lines.size:
            some = x[lines]
            x[lines] = np.where(some <= rounding * (left[lines, None] + right), 0.0, some)

    def eigenvalues(self, x: Any) -> Floats:
        return np.asarray(np.linalg.eigvalsh(x), dtype=np.float64)

    def eigenvectors(self, x: Any) -> tuple[Floats, Floats]:
        values, vectors = np.linalg.eigh(x)
        return values, vectors

    def singular_values(self, x: Any) -> Floats:
        values: Floats = linalg.svdvals(x)
        return values


@dataclass(frozen=True)
class OnCard:
    """torch, on one card; large matrices are taken apart by the cores of its host, one each, which
    a card is not known to do faster (`benchmarks.gpu` measures both).

    Attributes:
        device: Of torch.
    """

    device: str

    on_card = True

    @property
    def at_once(self) -> int:
        return cpu_count() or 1

    def put(self, x: NDArray[Any]) -> Any:
        return torch.tensor(x, device=self.device)

    def got(self, x: Any) -> NDArray[Any]:
        return _numpy(x)

    def exp(self, x: Any) -> Any:
        return x.exp()

    def fill_diagonal(self, x: Any, value: float) -> None:
        x.fill_diagonal_(value)

    def dot(self, x: Any, y: Any) -> float:
        return float(torch.vdot(x.flatten(), y.flatten()))

    def column_dots(self, x: Any, y: Any) -> Any:
        return (x * y).sum(0)

    def row_squares(self, x: Any) -> Any:
        return (x * x).sum(1)

    def sums(self, x: Any, cuts: Sequence[int], axis: int) -> Any:
        edges = [*cuts, x.shape[axis]]
        sizes = [stop - start for start, stop in pairwise(edges)]
        return torch.stack([part.sum(axis) for part in x.split(sizes, axis)], axis)

    def least(self, x: Any, axis: int) -> Floats:
        return _numpy(x.amin(axis))

    def smallest(self, x: Any, keep: int) -> Floats:
        return _numpy(x.topk(min(keep, x.shape[1]), 1, largest=False, sorted=False).values)

    def zero_within(self, x: Any, rounding: float, left: Any, right: Any) -> None:
        x.masked_fill_(x <= rounding * (left[:, None] + right), 0.0)

    def eigenvalues(self, x: Any) -> Floats:
        matrices = _numpy(x)
        several = matrices.reshape(-1, *matrices.shape[-2:])
        with ThreadPoolExecutor(min(len(several), self.at_once)) as pool:
            values = np.stack(list(pool.map(np.linalg.eigvalsh, several)))
        return values.reshape(matrices.shape[:-1])

    def eigenvectors(self, x: Any) -> tuple[Floats, Floats]:
        values, vectors = np.linalg.eigh(_numpy(x))
        return values, vectors

    def singular_values(self, x: Any) -> Floats:
        return _numpy(torch.linalg.svdvals(x.cpu()))  # SciPy's holds up other threads


def _numpy(x: torch.Tensor) -> NDArray[Any]:
    found: NDArray[Any] = x.cpu().numpy()
    return found


ON_CPU: Float64 = OnCpu()


def float64_on(device: str) -> Float64:
    """Returns what computes in float64 on a device: cards, and CPUs that stand in for them, by
    torch."""
    return OnCard(device) if is_card(device) else ON_CPU
