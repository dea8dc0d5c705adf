"""Batches of one size, the last one filled up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ddim_core.images.batches import in_batches


@pytest.mark.parametrize("n_images", [1, 3, 4, 5])
def test_all_batches_have_one_size_and_what_fills_the_last_is_left_out(n_images: int) -> None:
    asked: list[list[int]] = []

    def batch(rows: list[int]) -> Tensor:
        asked.append(rows)
        return torch.tensor(rows).reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2) / 255.0

    images = in_batches(n_images, 4, batch)
    assert images.shape == (n_images, 2, 2, 3)
    np.testing.assert_array_equal(images[:, 0, 0, 0], range(n_images))
    assert {len(rows) for rows in asked} == {4}
    assert asked[-1] == [*range(4 * (len(asked) - 1), n_images)] + [4 * (len(asked) - 1)] * (
        4 * len(asked) - n_images
    )


@pytest.mark.parametrize("n_before", [1, 3, 4, 6])
def test_images_have_the_places_that_they_have_after_those_before_them(n_before: int) -> None:
    asked: list[list[int]] = []

    def batch(rows: list[int]) -> Tensor:
        asked.append(rows)
        return torch.tensor(rows).reshape(-1, 1, 1, 1).expand(-1, 3, 2, 2) / 255.0

    images = in_batches(7, 4, batch, n_before)
    np.testing.assert_array_equal(images[:, 0, 0, 0], range(7))
    flat = [row for rows in asked for row in rows]
    place = n_before % 4
    assert flat[place : place + 7] == list(range(7))
    assert len(flat) % 4 == 0
