"""A moving average of another width than those that were kept: EDM2's post-hoc reconstruction.

Source: Karras et al. 2024 (arXiv:2312.02696), section 3 and appendix C. Their sigma_rel is `std`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Average:
    """A moving average by a power function, p(t) ~ t^gamma up to its end.

    Attributes:
        end: Where it was taken, such as images seen; any unit, the same for all.
        std: Standard deviation of p over its length, in (0, 1 / sqrt(12)) for gamma > 0.

    Raises:
        ValueError: If a number lies outside its range.
    """

    end: float
    std: float

    def __post_init__(self) -> None:
        if not 0.0 < self.end < np.inf:
            raise ValueError(f"an average ends at {self.end}; it must end above 0")
        if not 0.0 < self.std < 12.0**-0.5:
            raise ValueError(
                f"an average's std is {self.std}; it must lie above 0 and below {12.0**-0.5:.4f}, "
                "that of a plain mean"
            )

    @property
    def gamma(self) -> float:
        """The exponent: std^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), eqs. 123 and 126."""
        t = self.std**-2.0
        return float(np.roots([1.0, 7.0, 16.0 - t, 12.0 - t]).real.max())


def posthoc_coefficients(kept: Sequence[Average], wanted: Average) -> NDArray[np.float64]:
    """Returns how much of each kept average makes the wanted one: weights [n] that sum to 1.

        A x = b,   A_ij = <p_i, p_j>,   b_i = <p_i, p_wanted>

    whose sum of profiles is the nearest to the wanted one.

    Source: algorithm 3 there.

    Args:
        kept: At least one, and each once.
        wanted: Ends no later than the last of them, or it is guessed.

    Raises:
        ValueError: If there are none, or two are equal.
    """
    if not kept:
        raise ValueError("there is no average; at least one must be kept")
    if len(set(kept)) < len(kept):
        raise ValueError(
            f"of {len(kept)} averages {len(set(kept))} differ; all must, of one or more"
        )
    both = np.array([[_inner(a, b) for b in (*kept, wanted)] for a in kept])
    found = np.linalg.solve(both[:, :-1], both[:, -1])
    return found / found.sum()


def _inner(a: Average, b: Average) -> float:
    """<p_a, p_b>, the integral of both profiles' product over where both are (eq. 151)."""
    short, long = (a, b) if a.end < b.end else (b, a)
    ratio = (short.end / long.end) ** long.gamma
    scale = (a.gamma + 1.0) * (b.gamma + 1.0) / (a.gamma + b.gamma + 1.0)
    return scale * ratio / long.end
