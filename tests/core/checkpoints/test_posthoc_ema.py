"""EDM2's post-hoc averages: its own coefficients, and what they reconstruct."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from ddim_core.checkpoints.checkpoint import load_checkpoint
from ddim_core.checkpoints.convert import source_files
from ddim_core.checkpoints.posthoc_ema import (
    Average,
    kept_in,
    posthoc_coefficients,
    profile_error,
    reconstruct,
)
from tests.core.checkpoints.test_edm import FLOAT32, denoised, labelled
from tests.core.edm_files import GOLDEN, dumped, recorded

CASE = recorded()["Precond classes"]
NAMES = [f"network-snapshot-{kimg:07d}-{std}.pkl" for kimg in (2097, 4194)
         for std in ("0.050", "0.100")]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Snapshots as `tests/peers/record_edm.py` has them: other weights, the same frequencies."""
    fixed = {name: weight for name, weight in CASE.state.items() if "fourier" in name}
    (tmp_path / "run").mkdir()
    for seed, name in enumerate(NAMES, start=10):
        one = dataclasses.replace(CASE, meta={**CASE.meta, "seed": seed})
        (tmp_path / "run" / name).write_bytes(dumped({"ema": one.net({**one.state, **fixed})}))
    return tmp_path / "run"


def test_snapshots_are_summed_as_by_edm2s_own_code(run: Path, tmp_path: Path) -> None:
    (run / "training-state-0004194.pt").touch()
    kept = kept_in(run)
    assert [path.name for path in kept] == NAMES
    assert {average.end for average in kept.values()} == {2097152.0, 4194304.0}
    out = tmp_path / "out"
    out.mkdir()
    reconstruct(kept, {path: source_files(path) for path in kept}, 0.075, out)
    checkpoint = load_checkpoint(out)
    assert checkpoint.training_step == 4194
    assert "4 snapshots, summed to a moving average of std 0.075" in checkpoint.assumed[-1]
    x, sigma = torch.from_numpy(CASE.arrays["x"]), torch.tensor(0.3)
    got = denoised(labelled(checkpoint, 2), x, sigma).numpy()
    expected = np.load(GOLDEN)["phema/said"]
    np.testing.assert_allclose(got, expected, rtol=0, atol=FLOAT32 * np.abs(expected).max())


def test_snapshots_of_one_run_and_of_two_widths_are_needed(run: Path) -> None:
    assert [path.name for path in kept_in(run, 2097)] == NAMES[:2]
    with pytest.raises(ValueError, match=r"kimg is 3000, .*; it has 2097"):
        kept_in(run, 3000)
    (run / "other-0002097-0.050.pkl").touch()
    with pytest.raises(ValueError, match="of 2 runs, network-snapshot and other"):
        kept_in(run)
    for path in run.glob("*0.050.pkl"):
        path.unlink()
    with pytest.raises(ValueError, match=r"of 1 widths \(std\); an average of another width"):
        kept_in(run)
    with pytest.raises(ValueError, match="of 0 widths"):
        kept_in(run.parent)
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere"):
        kept_in(run / "nowhere")


def test_snapshots_of_another_network_are_no_part_of_an_average(run: Path, tmp_path: Path) -> None:
    other = recorded()["Precond other"]
    (run / NAMES[0]).write_bytes(dumped({"ema": other.net()}))
    (tmp_path / "out").mkdir()
    kept = kept_in(run)
    with pytest.raises(ValueError, match=f"{NAMES[0]} is of another network than {NAMES[3]}"):
        reconstruct(kept, {path: source_files(path) for path in kept}, 0.075, tmp_path / "out")


def test_a_profile_is_off_by_its_distance_on_a_grid() -> None:
    kept = [Average(2.0, 0.05), Average(2.0, 0.1)]
    wanted = Average(2.0, 0.07)
    weights = posthoc_coefficients(kept, wanted)
    t = (np.arange(200_000) + 0.5) / 100_000
    of = [(a.gamma + 1.0) / a.end * (t / a.end) ** a.gamma for a in (*kept, wanted)]
    off = np.linalg.norm(weights @ of[:2] - of[2]) / np.linalg.norm(of[2])
    assert profile_error(kept, wanted, weights) == pytest.approx(off, rel=1e-4)
    assert profile_error(kept, kept[0], np.array([1.0, 0.0])) == pytest.approx(0.0, abs=1e-7)


def test_coefficients_are_those_of_edm2s_own_code() -> None:
    arrays = np.load(GOLDEN)
    kept = [Average(end, std) for end, std in zip(*arrays["phema/of"], strict=True)]
    for i, (end, std) in enumerate(zip(*arrays["phema/to"], strict=True)):
        found = posthoc_coefficients(kept, Average(end, std))
        # The solution of a system of condition 1e4, in float64
        np.testing.assert_allclose(found, arrays["phema/coefficients"][:, i], rtol=0, atol=1e-9)


@pytest.mark.parametrize("std", [0.05, 0.1, 0.2])
def test_an_average_that_was_kept_is_itself(std: float) -> None:
    kept = [Average(end, s) for end in (1.0, 2.0, 4.0) for s in (0.05, 0.1, 0.2)]
    wanted = Average(4.0, std)
    expected = [float(average == wanted) for average in kept]
    np.testing.assert_allclose(posthoc_coefficients(kept, wanted), expected, rtol=0, atol=1e-7)


def test_snapshots_give_the_average_that_training_would_have_kept() -> None:
    """Of a course of weights over 2000 steps, by a recursion that keeps each average exactly."""
    weights = np.cumsum(np.random.default_rng(0).normal(size=2000))

    def tracked(average: Average) -> float:
        held, gamma = weights[0], average.gamma
        for t in range(2, int(average.end) + 1):
            held += (1.0 - (1.0 - 1.0 / t) ** (gamma + 1.0)) * (weights[t - 1] - held)
        return float(held)

    kept = [Average(end, std) for end in range(250, 2001, 250) for std in (0.05, 0.1)]
    for std in (0.07, 0.15):
        wanted = Average(2000, std)
        found = posthoc_coefficients(kept, wanted) @ [tracked(average) for average in kept]
        # The nearest of the kept ones is off by several times that.
        assert abs(found - tracked(wanted)) < 0.05 * abs(tracked(kept[-1]) - tracked(wanted)) + 0.02


@pytest.mark.parametrize(("end", "std"), [(0.0, 0.1), (np.inf, 0.1), (1.0, 0.0), (1.0, 0.3)])
def test_what_is_no_average_is_refused(end: float, std: float) -> None:
    with pytest.raises(ValueError, match="an average"):
        Average(end, std)
