"""The last item is taken while the ones before it are let go."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import pytest
import torch

from ddim_core.common.last import last_of
from ddim_core.diffusion.sampling import sample
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import NoiseSpec, SamplerSpec


def test_no_more_than_two_steps_of_a_run_are_alive_at_once() -> None:
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def watched() -> Iterator[torch.Tensor]:
        nonlocal most
        schedule = NoiseSchedule.from_spec(NoiseSpec("linear", 100))
        spec = SamplerSpec(50, 0.0)
        for step in sample(lambda x, t: x, schedule, spec, torch.ones(1, 4)):
            alive.append(weakref.ref(step.x))
            most = max(most, sum(ref() is not None for ref in alive))
            yield step.x

    assert last_of(watched()).shape == (1, 4)
    assert len(alive) == 50
    assert most <= 3  # the last one, this one, and what the network was asked about


def test_there_must_be_an_item() -> None:
    with pytest.raises(IndexError):
        last_of([])
