"""Runs in chunks, the length of the long one, and distances between what is seen of their ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddim_core.samplers.name import SamplerName, parse_sampler
from ddim_core.tuning.runs import Seen, chunks_of
from ddim_core.tuning.target import LOOKED_AT, long_run

NAME = parse_sampler("dpmpp_2m")


@pytest.mark.parametrize(
    ("n", "size", "sizes"),
    [(128, 128, [128]), (128, 32, [32] * 4), (10, 128, [10]), (20, 8, [8, 8, 4])],
)
def test_images_are_looked_at_a_network_call_at_a_time(n: int, size: int, sizes: list[int]) -> None:
    chunks = chunks_of(n, size)
    assert [len(places) for places in chunks] == sizes
    assert [i for places in chunks for i in places] == list(range(n))


class Halving:
    """Ends of S steps are 1 / S from zero; which chunks were run is kept."""

    def __init__(self) -> None:
        self.calls, self.asked = 0, list[tuple[int, int]]()

    def ends(self, sampler: SamplerName, steps: int, chunk: int) -> torch.Tensor:
        self.asked.append((steps, chunk))
        return torch.full((4, 2), 1.0 / steps)

    def ignores_time(self) -> bool:
        return False


def test_the_length_of_the_long_run_is_found_on_few_images_and_all_are_drawn_at_it() -> None:
    runs = Halving()
    target = long_run(runs, 6, NAME, lambda target: 0.1)
    assert target.settled
    assert target.steps == 256  # 1/128 - 1/256 is 0.004; 5 % of 0.1 is 0.005
    assert len(target.ends) == 6
    assert {chunk for steps, chunk in runs.asked if steps < target.steps} == set(range(LOOKED_AT))


def test_distances_lie_between_what_is_seen() -> None:
    seen = Seen(Halving(), lambda ends: ends * 3.0)
    np.testing.assert_allclose(seen.ends(NAME, 2, 0).numpy(), 1.5)
