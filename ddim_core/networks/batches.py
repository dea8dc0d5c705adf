"""One way to run a network over many rows so that no row depends on its neighbours."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def in_fixed_batches(
    function: Callable[..., Tensor], size: int, first: Tensor, *others: Tensor
) -> Tensor:
    """Applies `function` to batches of exactly `size` rows, the last one padded with copies.

    oneDNN and BLAS choose their kernels, and so their order of summation, by the batch size: the
    same image in a batch of 50 and of 64 differs by about 1e-6. With one batch size a row's result
    is bit-equal whatever stands beside it, wherever it stands, and for any number of threads.

    Args:
        function: Maps tensors [size, ...] to one tensor [size, ...], row by row.
        size: Rows per call, at least 1.
        first, others: Tensors with the same number of rows, at least one.

    Returns:
        The results of all rows [n, ...], an ordinary tensor (not an inference tensor).

    Raises:
        ValueError: If there are no rows.
    """
    n = len(first)
    if n == 0:
        raise ValueError("no rows were given; there must be at least one")
    out: Tensor | None = None
    for start in range(0, n, size):
        parts = [_padded(rows[start : start + size], size) for rows in (first, *others)]
        with torch.inference_mode():
            result = function(*parts)
        if out is None:
            out = torch.empty((n, *result.shape[1:]), dtype=result.dtype, device=result.device)
        stop = min(start + size, n)
        out[start:stop] = result[: stop - start]
    assert out is not None
    return out


def _padded(rows: Tensor, size: int) -> Tensor:
    missing = size - len(rows)
    if missing == 0:
        return rows
    return torch.cat([rows, rows[:1].expand(missing, *rows.shape[1:])])
