"""The streams that schedulers draw from: each image's own, whatever stands beside it."""

from __future__ import annotations

import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor

from ddim_core.diffusion.noise import ImageNoise
from ddim_core.samplers.streams import image_streams


def test_a_draw_belongs_to_the_seed_and_the_image() -> None:
    first = randn_tensor((2, 3), generator=image_streams(0, [5, 9]))
    other = randn_tensor((3, 3), generator=image_streams(0, [1, 9, 5]))
    assert first[0].equal(other[2])
    assert first[1].equal(other[1])
    assert not first[0].equal(randn_tensor((1, 3), generator=image_streams(1, [5]))[0])
    assert not first[0].equal(first[1])


def test_numbers_that_differ_above_32_bits_have_different_streams() -> None:
    draws = [
        torch.randn(4, generator=image_streams(seed, [index])[0])
        for seed, index in ((0, 0), (2**32, 0), (0, 2**32), (1, 0), (0, 1), (11, 1), (1, 11))
    ]
    assert len({tuple(draw.tolist()) for draw in draws}) == len(draws)


def test_the_streams_are_not_those_of_the_starting_noise() -> None:
    x_T = ImageNoise(0, [3], (1000,)).x_T()[0]
    draw = torch.randn(1000, generator=image_streams(0, [3])[0])
    assert abs(float(torch.corrcoef(torch.stack([x_T, draw]))[0, 1])) < 5 / 1000**0.5


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (2**63, 0), (0, -1), (0, 2**63)])
def test_numbers_outside_their_range_are_refused(seed: int, index: int) -> None:
    with pytest.raises(ValueError, match=r"it must lie in 0..2\^63 - 1"):
        image_streams(seed, [index])
