"""Memory that ran out, said in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")


@contextmanager
def memory_told(told: str) -> Iterator[None]:
    """Inside, running out of memory, in place of torch's own errors, is a MemoryError that says
    what is told."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not any(
            words in str(error) for words in OUT_OF_MEMORY
        ):
            raise
        raise MemoryError(told) from error
