"""Interpolated noise: the ends are kept, the way is even, and it stays noise."""

from __future__ import annotations

import pytest
import torch

from ddim_core.diffusion.interpolation import corner_grid, line

A, B, C, D = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()


def angle(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.acos((a * b).sum() / (a.norm() * b.norm())))


def test_line_begins_and_ends_with_its_two_draws() -> None:
    found = line(A, B, 7)
    assert found.shape == (7, 3, 16, 16)
    torch.testing.assert_close(found[0], A)
    torch.testing.assert_close(found[-1], B)


def test_line_goes_in_even_angles() -> None:
    found = line(A / A.norm(), B / B.norm(), 6)
    turns = torch.tensor([angle(found[i], found[i + 1]) for i in range(5)])
    # acos loses half of float64's digits at small angles
    torch.testing.assert_close(turns, torch.full((5,), angle(A, B) / 5), atol=1e-6, rtol=0)


def test_the_middle_of_a_line_is_as_loud_as_noise() -> None:
    # The straight mean of two draws would have 0.71 of the norm.
    norm = float(line(A, B, 3)[1].norm())
    assert norm == pytest.approx(float(A.norm() + B.norm()) / 2, rel=0.05)


def test_grid_has_the_four_draws_in_its_corners_and_lines_for_its_sides() -> None:
    found = corner_grid(torch.stack([A, B, C, D]), 5)
    assert found.shape == (5, 5, 3, 16, 16)
    for corner, wanted in zip((found[0, 0], found[0, -1], found[-1, 0], found[-1, -1]),
                              (A, B, C, D), strict=True):  # fmt: skip
        torch.testing.assert_close(corner, wanted)
    torch.testing.assert_close(found[0], line(A, B, 5))
    torch.testing.assert_close(found[:, 0], line(A, C, 5))


def test_what_has_no_line_is_refused() -> None:
    with pytest.raises(ValueError, match="n is 1; a line needs at least its 2 ends"):
        line(A, B, 1)
    with pytest.raises(ValueError, match="there are 3 corners"):
        corner_grid(torch.stack([A, B, C]), 5)
    with pytest.raises(ValueError, match="opposite"):
        line(A, -A, 5)
