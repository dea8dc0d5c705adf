"""Frechet and kernel distances against recorded results of pytorch-fid and torch-fidelity."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from ddim_core.scores.distances.frechet import Reference, frechet_distance
from ddim_core.scores.distances.frechet_score import frechet_interval
from ddim_core.scores.distances.kernel import kid, mmd2_unbiased
from ddim_core.statistics.jackknife import jackknife
from ddim_core.statistics.moments import FeatureMoments, leave_one_out

GOLDEN = Path(__file__).parents[2] / "golden" / "fid_features.npz"
with np.load(GOLDEN) as archive:
    ROWS: dict[str, dict[str, Any]] = json.loads(str(archive["meta"]))["rows"]


class Case(NamedTuple):
    row: dict[str, Any]
    x: np.ndarray
    y: np.ndarray


@pytest.fixture(params=ROWS)
def case(request) -> Case:
    name = request.param
    with np.load(GOLDEN) as archive:
        scale = archive[f"{name}/scale"]
        x, y = (archive[f"{name}/{part}"].astype(np.float32) * scale for part in "XY")
    return Case(ROWS[name], x, y)


def largest_kernel_value(x: np.ndarray, y: np.ndarray) -> float:
    squared = (np.concatenate([x, y]).astype(float) ** 2).sum(axis=1)
    return float((squared.max() / x.shape[1] + 1.0) ** 3)


def test_every_kind_of_covariance_is_among_the_cases():
    assert len(ROWS) == 14


def test_frechet_distance_is_exact(case):
    value = frechet_distance(*(FeatureMoments.from_features(part) for part in (case.x, case.y)))
    # Measured: 2e-13 relative at worst, 2e-14 absolute for identical sets.
    assert value == pytest.approx(case.row["fid_exact"], rel=1e-12, abs=1e-12)
    assert value >= 0.0


def test_frechet_distance_of_sharded_moments_is_exact(case):
    n_shards = 4 if len(case.x) >= 8 else 1
    shards = [FeatureMoments.from_features(part) for part in np.array_split(case.x, n_shards)]
    reference = Reference.of(FeatureMoments.from_features(case.y))
    score = frechet_interval(shards, reference)
    assert score.fid == pytest.approx(case.row["fid_exact"], rel=1e-9, abs=1e-9)


def test_the_faster_routes_agree(case):
    reference = Reference.of(FeatureMoments.from_features(case.y))
    expected = case.row["fid_exact"]
    by_features = reference.distance_of_features(case.x)
    assert by_features == pytest.approx(expected, rel=1e-12, abs=1e-12)
    resampled = reference.resampled_distance(FeatureMoments.from_features(case.x))
    # Roots of eigenvalues near rounding: 1e-9 measured at worst, on the ill-conditioned case.
    assert resampled == pytest.approx(expected, rel=1e-8, abs=1e-10)


def test_kernel_distance_is_torch_fidelitys_in_float64(case):
    arguments: dict[str, int] = {}
    if not case.row["kid_args"].startswith("defaults"):
        pairs = dict(item.split("=") for item in case.row["kid_args"].split(","))
        arguments = {"subsets": int(pairs["subsets"]), "subset_size": int(pairs["size"])}
    mean, std = kid(case.x, case.y, **arguments)
    # Entries are rounded to eps times the largest, and their sums to a few times that. Where the
    # mean is large the entries dwarf their difference: 1e18 against 2e12 in `largemean_d16`.
    rounding = 32 * np.finfo(np.float64).eps * largest_kernel_value(case.x, case.y)
    assert mean == pytest.approx(case.row["kid_mean_f64"], rel=1e-12, abs=rounding)
    assert std == pytest.approx(case.row["kid_std_f64"], rel=1e-12, abs=rounding)


def test_full_kernel_distance_is_the_recorded_one(case):
    rounding = 32 * np.finfo(np.float64).eps * largest_kernel_value(case.x, case.y)
    expected = case.row["kid_full_unbiased_f64"]
    assert mmd2_unbiased(case.x, case.y) == pytest.approx(expected, rel=1e-12, abs=rounding)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if "jack10" in row])
def test_jackknife_is_the_recorded_one(name):
    with np.load(GOLDEN) as archive:
        scale = archive[f"{name}/scale"]
        x, y = (archive[f"{name}/{part}"].astype(np.float32) * scale for part in "XY")
    recorded = ROWS[name]["jack10"]
    reference = Reference.of(FeatureMoments.from_features(y))
    shards = [FeatureMoments.from_features(part) for part in np.array_split(x, 10)]
    loo = [reference.resampled_distance(rest) for rest in leave_one_out(shards)]
    found = jackknife(frechet_interval(shards, reference).fid, loo)
    # Full rank, so that both routes are exact to some 1e-13; the bias counts it ten times.
    assert loo == pytest.approx(recorded["loo"], rel=1e-11)
    assert found.value == pytest.approx(recorded["theta"], rel=1e-11)
    assert found.se == pytest.approx(recorded["se"], rel=1e-9)
    assert found.bias_corrected == pytest.approx(recorded["bias_corrected"], rel=1e-10)
