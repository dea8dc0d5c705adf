"""Other programs' files of statistics and features, and ours in their hands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pytorch_fid.fid_score import calculate_frechet_distance, compute_statistics_of_path

from ddim_core.scores.set_score import FeatureSet, score_pair
from ddim_core.statistics.npz import Statistics, read_npz, save_statistics, statistics_of
from tests.core.features.test_protocol import RECORD

RANDOM = np.random.default_rng(0)
X, Y = (RANDOM.normal(size=(n, 6)).astype(np.float32) + shift for n, shift in ((40, 0), (30, 1)))


def test_pytorch_fid_reads_our_statistics_and_we_read_its(tmp_path: Path) -> None:
    path = tmp_path / "ours.npz"
    save_statistics(path, statistics_of(X, RECORD))
    mu, sigma = compute_statistics_of_path(str(path), None, 1, 6, "cpu")
    np.testing.assert_allclose(mu, X.mean(axis=0, dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(sigma, np.cov(X, rowvar=False), rtol=1e-12)
    back = read_npz(path)
    assert isinstance(back, Statistics)
    assert (back.count, back.record) == (40, RECORD)
    np.savez_compressed(tmp_path / "theirs.npz", mu=mu, sigma=sigma)  # as pytorch-fid saves
    theirs = read_npz(tmp_path / "theirs.npz")
    assert isinstance(theirs, Statistics)
    assert (theirs.count, theirs.record) == (None, None)
    assert np.array_equal(theirs.sigma, back.sigma)


@pytest.mark.parametrize("count", [None, 40])
def test_a_distance_to_statistics_is_pytorch_fids(count: int | None) -> None:
    mu, sigma = Y.mean(axis=0, dtype=np.float64), np.cov(Y, rowvar=False)
    reference = FeatureSet("reference", given=Statistics(mu, sigma, count))
    expected = calculate_frechet_distance(X.mean(axis=0, dtype=float), np.cov(X.T), mu, sigma)
    by_features = score_pair(FeatureSet("x", [X]), reference).score
    # Full rank: pytorch-fid is good to some 1e-9 here.
    assert by_features.fid == pytest.approx(expected, rel=1e-8)
    assert by_features.fid_low < by_features.fid < by_features.fid_high
    assert by_features.kid is None
    by_statistics = score_pair(FeatureSet("x", given=statistics_of(X, None)), reference).score
    assert by_statistics.fid == pytest.approx(by_features.fid, rel=1e-12)
    assert by_statistics.fid_low is None
    assert by_statistics.n_images == 40
    whole = score_pair(FeatureSet("x", [X]), FeatureSet("y", [Y])).score
    assert whole.fid == pytest.approx(by_features.fid, rel=1e-12)
    assert whole.kid is not None


def test_statistics_of_few_images_keep_their_rank() -> None:
    wide = RANDOM.normal(size=(5, 20)).astype(np.float32)
    other = RANDOM.normal(size=(7, 20)).astype(np.float32)
    unknown = Statistics(wide.mean(axis=0, dtype=float), np.cov(wide, rowvar=False))
    expected = score_pair(FeatureSet("x", [other]), FeatureSet("y", [wide])).score.fid
    found = score_pair(FeatureSet("x", [other]), FeatureSet("y", given=unknown)).score.fid
    assert found == pytest.approx(expected, rel=1e-6)  # a saved covariance has lost its rank


def test_features_of_different_protocols_are_refused() -> None:
    from dataclasses import replace

    one = FeatureSet("a", given=statistics_of(X, RECORD))
    other = FeatureSet("b", given=statistics_of(Y, replace(RECORD, resize="clean")))
    with pytest.raises(ValueError, match="a and b have features of different protocols: resize is"):
        score_pair(one, other)
    with pytest.raises(ValueError, match="a has 6 features and c 5"):
        score_pair(one, FeatureSet("c", [Y[:, :5]]))


@pytest.mark.parametrize("key", ["features", "feats", "reps", "arr_0"])
def test_features_are_found_under_everyones_name(tmp_path: Path, key: str) -> None:
    np.savez(tmp_path / "f.npz", **{key: X})
    assert np.array_equal(read_npz(tmp_path / "f.npz"), X)


def test_images_of_an_npz_are_images(tmp_path: Path) -> None:
    images = RANDOM.integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "samples.npz", images)  # as guided-diffusion saves samples
    assert np.array_equal(read_npz(tmp_path / "samples.npz"), images)


@pytest.mark.parametrize(
    ("arrays", "wanted"),
    [
        ({"labels": np.zeros(3)}, "holds labels; it must hold mu and sigma, features"),
        ({"mu": np.zeros(3), "sigma": np.zeros((2, 2))}, r"mu \(3,\) and sigma \(2, 2\)"),
        ({"mu": np.zeros(2), "sigma": np.full((2, 2), np.nan)}, "not finite"),
        ({"mu": np.zeros(2), "sigma": np.array([[1.0, 0.5], [0.0, 1.0]])}, "not symmetric"),
        ({"features": np.array([[1.0, np.inf]])}, "every feature must be finite"),
        ({"features": np.array([None])}, "no .npz of plain arrays"),
    ],
)
def test_what_is_no_statistics_is_refused(tmp_path: Path, arrays: dict, wanted: str) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=wanted):
        read_npz(tmp_path / "bad.npz")


def test_bytes_that_are_no_npz_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"bad\.npz is no \.npz of plain arrays"):
        read_npz(tmp_path / "bad.npz")
    with pytest.raises(ValueError, match=r"its name must end in \.npz"):
        save_statistics(tmp_path / "stats", statistics_of(X, None))


@pytest.mark.parametrize(
    "held",
    [
        {"mu": np.zeros(9000, np.uint8), "sigma": np.zeros((9000, 9000), np.uint8)},
        {"features": np.zeros((30_000, 1000), np.float16)},
        {"features": np.zeros((2, 20_000), np.float32)},
        {"mu": np.zeros(2), "sigma": np.eye(2), "count": np.array([1, 2])},
        {"mu": np.zeros(2), "sigma": np.eye(2), "record": np.array("[" * 100_000)},
        {"mu": np.zeros(2), "sigma": np.eye(2), "record": np.array('{"x": 1}')},
        {"mu": np.zeros(2), "sigma": 1j * np.eye(2)},
        {"mu": np.zeros(0), "sigma": np.zeros((0, 0))},
    ],
)
def test_small_files_of_absurd_statistics_are_refused(
    tmp_path: Path, held: dict[str, np.ndarray]
) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", **held)
    with pytest.raises(ValueError, match=r"bomb\.npz"):
        read_npz(tmp_path / "bomb.npz")
