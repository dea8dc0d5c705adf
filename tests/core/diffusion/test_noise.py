"""Every image owns its draws; arcs between draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ddim_core.diffusion.sampling import ImageNoise, slerp
from tests.core.analytic import one_thread  # noqa: F401 (a fixture)

# [x_T, step 0, step 999] x [image 0, image 3] x 2 pixels
RECORDED = [
    [[-0.2933390140533447, 1.703830599784851], [-1.4470674991607666, -0.9134206771850586]],
    [[1.2810301780700684, 2.479792594909668], [-3.49345326423645, 0.3285943269729614]],
    [[0.7891273498535156, -0.23838451504707336], [1.156288743019104, 0.6503662467002869]],
]


def test_draws_are_the_recorded_ones() -> None:
    """A change of these numbers changes every picture ever made: it must be meant."""
    noise = ImageNoise(seed=7, indices=[0, 3], shape=(2,))
    expected = torch.tensor(RECORDED, dtype=torch.float32)
    assert torch.equal(torch.stack([noise.x_T(), noise(0), noise(999)]), expected)


@given(
    st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=6, unique=True),
    st.integers(0, 2**63 - 1),
    st.lists(st.integers(0, 1000), min_size=1, max_size=4),
)
@settings(max_examples=50, deadline=None)
def test_draws_do_not_depend_on_the_batch_nor_on_earlier_draws(
    indices: list[int], seed: int, steps: list[int]
) -> None:
    together = ImageNoise(seed, indices, (1, 3, 3))
    backwards = ImageNoise(seed, indices[::-1], (1, 3, 3))
    for i in steps:
        batch = together(i)
        assert torch.equal(batch.flip(0), backwards(i))
        for row, index in zip(batch, indices, strict=True):
            assert torch.equal(row, ImageNoise(seed, [index], (1, 3, 3))(i)[0])
    alone = torch.cat([ImageNoise(seed, [index], (1, 3, 3)).x_T() for index in indices])
    assert torch.equal(together.x_T(), alone)


def test_draws_are_float32_of_the_shape_asked_for() -> None:
    noise = ImageNoise(0, range(4), (3, 8, 8))
    for draw in (noise.x_T(), noise(5)):
        assert draw.shape == (4, 3, 8, 8)
        assert draw.dtype == torch.float32
        assert draw.device.type == "cpu"


def test_draws_go_to_the_device_asked_for() -> None:
    assert ImageNoise(0, [1], (2,), device="meta").x_T().device.type == "meta"


def test_draws_are_standard_normal() -> None:
    noise = ImageNoise(11, range(200), (1, 8, 8))
    draws = torch.cat([noise.x_T(), *(noise(i) for i in range(9))]).numpy().ravel()
    # 128,000 draws with a fixed seed: the p-value is a constant.
    assert stats.kstest(draws, "norm").pvalue > 0.01
    assert abs(draws.mean()) < 5 / math.sqrt(draws.size)
    assert abs(draws.var() - 1) < 5 * math.sqrt(2 / draws.size)


def test_seeds_images_and_steps_are_uncorrelated() -> None:
    n = 20_000
    draws = [
        draw
        for seed in (0, 1)
        for noise in [ImageNoise(seed, [0, 1, 2**62], (n,))]
        for draw in torch.cat([noise.x_T(), noise(0), noise(1), noise(999)]).numpy()
    ]
    correlations = np.corrcoef(draws) - np.eye(24)
    assert np.abs(correlations).max() < 5 / math.sqrt(n)  # five standard errors


def test_seed_and_index_are_not_interchangeable() -> None:
    assert not torch.equal(ImageNoise(1, [2], (4,)).x_T(), ImageNoise(2, [1], (4,)).x_T())


@pytest.mark.parametrize("bad", [-1, 2**63])
def test_seeds_indices_and_steps_outside_their_range_are_refused(bad: int) -> None:
    with pytest.raises(ValueError, match=f"seed is {bad}"):
        ImageNoise(bad, [0], (2,))
    with pytest.raises(ValueError, match=f"image index is {bad}"):
        ImageNoise(0, [0, bad], (2,))
    with pytest.raises(ValueError, match=f"step is {bad}"):
        ImageNoise(0, [0], (2,))(bad)
    with pytest.raises(ValueError, match="every side"):
        ImageNoise(0, [0], (2, 0))


# Arcs


def test_arc_between_perpendicular_images_is_a_quarter_circle() -> None:
    a, b = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[[0.0, 2.0]]])
    for w in (0.0, 0.25, 0.5, 1.0):
        angle = w * math.pi / 2
        expected = torch.tensor([[[2 * math.cos(angle), 2 * math.sin(angle)]]])
        torch.testing.assert_close(slerp(a, b, w), expected, rtol=0, atol=1e-6)


def test_arc_keeps_the_norm_of_each_image_where_a_straight_line_does_not() -> None:
    noise = ImageNoise(3, range(8), (3, 16, 16))
    a, b = noise.x_T(), noise(0)
    b *= (
        a.flatten(1).norm(dim=1)[:, None, None, None]
        / b.flatten(1).norm(dim=1)[:, None, None, None]
    )
    middle = slerp(a, b, 0.5)
    assert middle.shape == a.shape
    torch.testing.assert_close(middle.flatten(1).norm(dim=1), a.flatten(1).norm(dim=1))
    assert (((a + b) / 2).flatten(1).norm(dim=1) < 0.8 * a.flatten(1).norm(dim=1)).all()


def test_arc_ends_are_the_images_themselves() -> None:
    noise = ImageNoise(3, range(4), (5,))
    torch.testing.assert_close(slerp(noise.x_T(), noise(0), 0.0), noise.x_T())
    torch.testing.assert_close(slerp(noise.x_T(), noise(0), 1.0), noise(0))


@pytest.mark.parametrize("gap", [0.0, 1e-300, 1e-12, 1e-7, 1e-3])
def test_arc_between_nearly_parallel_images_is_the_straight_line(gap: float) -> None:
    a = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[1.0, gap]], dtype=torch.float64)
    middle = slerp(a, b, 0.25)
    torch.testing.assert_close(middle, 0.75 * a + 0.25 * b, rtol=1e-6, atol=0)


def test_each_image_of_a_batch_has_its_own_angle() -> None:
    noise = ImageNoise(3, range(4), (5,))
    a, b = noise.x_T(), noise(0)
    together = slerp(a, b, 0.3)
    for k in range(4):
        torch.testing.assert_close(together[k : k + 1], slerp(a[k : k + 1], b[k : k + 1], 0.3))


def test_arcs_without_a_meaning_are_refused() -> None:
    a = torch.ones(2, 3)
    with pytest.raises(ValueError, match="opposite"):
        slerp(a, -a, 0.5)
    with pytest.raises(ValueError, match="all zero"):
        slerp(a, torch.zeros(2, 3), 0.5)
    with pytest.raises(ValueError, match=r"w is 1\.5"):
        slerp(a, 2 * a, 1.5)
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 2\)"):
        slerp(a, a[:, :2], 0.5)
