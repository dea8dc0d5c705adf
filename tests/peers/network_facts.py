"""What the recording of others' networks and its tests both draw: weights and noise.

NumPy's RandomState has a stream that is fixed for ever, so that only names, inputs and answers are
kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

STREAMS = (5, 6)  # seeds of the images' own streams, where a sampler draws noise


def drawn(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, torch.Tensor]:
    """Weights for names and shapes, of standard deviation 0.1."""
    draw = np.random.RandomState(seed)
    return {
        name: torch.from_numpy((0.1 * draw.standard_normal(shape)).astype(np.float32))
        for name, shape in sorted(shapes.items())
    }


def noises(n_steps: int, shape: Sequence[int]) -> torch.Tensor:
    """Standard normal noise of each step."""
    values = np.random.RandomState(9).standard_normal((n_steps, *shape))
    return torch.from_numpy(values.astype(np.float32))


def streams() -> list[torch.Generator]:
    """The images' streams, fresh."""
    return [torch.Generator().manual_seed(seed) for seed in STREAMS]
