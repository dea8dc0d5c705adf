"""Noise drawn ahead is the noise that is drawn when it is asked for."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from ddim_core.diffusion.noise import ImageNoise
from ddim_core.diffusion.noise_ahead import NoiseAhead


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 4, 4)])  # above and below a block of a stream
@pytest.mark.parametrize("indices", [[5], list(range(3, 40)), [9, 2, 9, 9]])
def test_the_draws_are_the_same_in_any_order(shape: tuple[int, ...], indices: list[int]) -> None:
    plain, ahead = ImageNoise(7, indices, shape), NoiseAhead(7, indices, shape, "cpu", 4)
    assert torch.equal(ahead.x_T(), plain.x_T())
    for i in (0, 1, 2, 3, 1, 5, 0):
        assert torch.equal(ahead(i), plain(i)), i
    assert torch.equal(ahead.x_T(), plain.x_T())


def test_what_is_no_seed_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="seed is -1"):
        NoiseAhead(-1, [0], (1, 4, 4), "cpu", 1)


def test_a_stream_draws_one_thing_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a step is asked for out of order while another one's draw is under way."""
    inside: dict[int, int] = {}
    most = [0]

    def slowly(self: ImageNoise, *args: Any, plain: Any) -> torch.Tensor:
        inside[id(self)] = inside.get(id(self), 0) + 1
        most[0] = max(most[0], inside[id(self)])
        time.sleep(0.02)
        made: torch.Tensor = plain(self, *args)
        inside[id(self)] -= 1
        return made

    for name in ("x_T", "__call__"):
        own = getattr(ImageNoise, name)
        monkeypatch.setattr(
            ImageNoise, name, lambda self, *args, own=own: slowly(self, *args, plain=own)
        )
    ahead = NoiseAhead(7, [1, 2], (3, 8, 8), "cpu", 9)
    for i in (None, 3, 7, 1):
        ahead.x_T() if i is None else ahead(i)
    assert most == [1]
