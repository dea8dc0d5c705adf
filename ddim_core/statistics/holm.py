"""Holm's correction of p-values for several tests at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p-values for testing several hypotheses at once, in the order given.

    The k-th smallest of m becomes the largest of (m - j + 1) p_(j) over j <= k, at most 1.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".

    Raises:
        ValueError: If a value is outside [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    if not ((p >= 0.0) & (p <= 1.0)).all():
        raise ValueError(f"p_values is {list(p_values)}; each must lie in [0, 1]")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(value) for value in adjusted]
