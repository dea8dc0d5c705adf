"""What tells that a score is not to be trusted: few images that carry it, copies, small sets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from benchmarks.trust import real_of, tails
from benchmarks.worlds import WORLDS, modes
from ddim_core.decisions.trust import doubts, doubts_of
from ddim_core.scores.cell_score import ScoreReference, groups_of, score, score_features
from ddim_core.scores.distances.frechet import Reference, frechet_values
from ddim_core.scores.distances.frechet_infinity import root_trace_infinity, root_trace_population
from ddim_core.scores.distances.frechet_score import bias_of_few, frechet_influence, frechet_score
from ddim_core.scores.distances.kernel_score import kernel_score
from ddim_core.scores.set_score import FeatureSet, score_pair
from ddim_core.statistics.duplicates import duplicates_together
from ddim_core.statistics.jackknife import jackknife, two_sided
from ddim_core.statistics.moments import FeatureMoments
from ddim_core.statistics.npz import statistics_of
from ddim_core.statistics.rows import FeatureRows
from ddim_core.statistics.tails import carried_by, rests_on_few, tail_index
from tests.core.rows import cell_row
from tests.core.worlds import World


def kinds(found) -> list[str]:
    return [doubt.kind for doubt in doubts(found)]


def test_images_that_carry_a_spread_are_counted() -> None:
    assert carried_by([1.0, -1.0] * 50) == pytest.approx(100.0)
    alone = np.zeros(1000)
    alone[7] = 1e200  # no square of it is finite
    assert carried_by(alone) == pytest.approx(1.0, rel=3e-3)
    assert carried_by(np.full(30, 3.0)) == 30.0
    some = np.random.default_rng(0).normal(size=50)
    assert carried_by(some + 100.0) == pytest.approx(carried_by(some))  # what all share is no pull
    assert rests_on_few(39.0, 1000)
    assert not rests_on_few(40.0, 1000)
    assert [rests_on_few(1000**0.5, 1000, tail) for tail in (0.49, 0.51)] == [False, True]
    assert rests_on_few(4.0, 1000, 0.1)
    assert not rests_on_few(500.0, 1000, 1.0)


@pytest.mark.parametrize("index", [0.3, 0.5, 1.0])
def test_the_tail_index_is_that_of_a_law_of_pareto(index: float) -> None:
    found = tail_index(np.random.default_rng(2).uniform(size=100_000) ** -index)
    # The same integral, of the largest k = 633 of them beyond the median. Without it: `index`.
    largest, median = (np.arange(1e5) + 0.5) / 1e5 * 633e-5, 0.5**-index
    told = np.log((largest**-index - median) / (633e-5**-index - median)).mean()
    assert told == pytest.approx(index, rel=0.3)
    assert found == pytest.approx(told, rel=4 / 633**0.5)  # a mean of as many exponential draws


def test_the_tail_index_of_few_is_a_number_or_nothing() -> None:
    assert tail_index(np.arange(199.0)) is None
    assert tail_index(np.ones(500)) == 0.0
    assert tail_index([0.0] * 499 + [7.0]) == 0.0
    assert tail_index([0.0] * 498 + [np.e, 1.0]) == pytest.approx(1.0)
    assert tail_index(1e300 * np.arange(500.0)) == pytest.approx(tail_index(np.arange(500.0)))


def test_the_influence_is_the_derivative_of_the_distance_in_an_images_weight() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4))
    reference = Reference.of(FeatureMoments.from_features(1.3 * rng.normal(size=(300, 4)) + 0.2))
    influence = frechet_influence(FeatureRows.of_array(x), reference)
    # The same distance with one image's weight a little larger, by numerical differentiation.
    centre = x.mean(axis=0)

    def weighted(i: int, h: float) -> float:
        w = np.full(60, 1.0 / 60.0)
        w[i] += h
        w /= w.sum()
        mean = w @ x
        scatter = (w[:, None] * (x - mean)).T @ (x - mean) * 60.0  # divided by 59 in the end
        return reference.distance(FeatureMoments(60, mean, scatter))

    slopes = [(weighted(i, 1e-5) - weighted(i, -1e-5)) / 2e-5 for i in range(60)]
    assert centre.shape == (4,)
    # Up to what all share; 60/59 since the covariance divides by n - 1, the mean by n.
    assert np.corrcoef(slopes, influence)[0, 1] > 0.9999
    values = frechet_values(x, reference)
    assert values.mean() == pytest.approx(reference.distance_of_features(x), rel=1e-12)
    assert values - values.mean() == pytest.approx(influence - influence.mean(), rel=1e-9)
    few = frechet_values(x[:3], reference)  # fewer images than features
    assert few.mean() == pytest.approx(reference.distance_of_features(x[:3]), rel=1e-12)


def test_the_kernels_influence_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(600, 5)), rng.normal(size=(300, 5)) + 0.3  # several blocks of pairs
    kernel = (x @ x.T / 5 + 1.0) ** 3
    np.fill_diagonal(kernel, 0.0)
    influence = kernel.sum(axis=1) / 599 - ((x @ y.T / 5 + 1.0) ** 3).mean(axis=1)
    rows = FeatureRows.of_array(x)
    found = kernel_score(rows, groups_of(rows), FeatureRows.of_array(y))
    assert found.carried_by == pytest.approx(carried_by(influence))


@pytest.mark.parametrize("name", ["outliers", "strays", "lengths", "t3", "stretched"])
def test_heavy_tails_are_told(name: str) -> None:
    rng = np.random.default_rng(3)
    draw = WORLDS[name]
    reference = ScoreReference.of(real_of(draw(600, 16, rng)))
    told = [kinds(score_features([draw(1000, 16, rng)], reference)) for _ in range(12)]
    # 95 % of draws are to be told: of 12 at most 3 (as many fail in 0.2 % of such dozens).
    assert sum("tails" in found for found in told) >= 9


@pytest.mark.parametrize("name", ["gauss", "relu", "softmax", "mixture", "chain", "laplace"])
def test_light_tails_raise_no_doubt(name: str) -> None:
    rng = np.random.default_rng(4)
    draw = WORLDS[name]
    reference = ScoreReference.of(real_of(draw(2000, 16, rng)))
    told = [kinds(score_features([draw(500, 16, rng)], reference)) for _ in range(12)]
    # How much is the reference's size is another matter, and told wherever it can be seen.
    assert sum(set(found) - {"reference"} != set() for found in told) <= 3


@pytest.mark.parametrize(("share", "apart"), [(0.05, 4.0), (0.5, 4.0)])
def test_a_share_of_one_kind_that_is_right_is_told(share: float, apart: float) -> None:
    rng = np.random.default_rng(6)
    draw = modes(share, apart)
    reference = ScoreReference.of(draw(1000, 16, rng))
    told = [kinds(score_features([draw(1000, 16, rng)], reference)) for _ in range(8)]
    assert sum("flat" in found for found in told) >= 7
    # Far from it the distance is no square, and intervals hold.
    far = ScoreReference.of(modes(0.9 - share, apart)(1000, 16, rng))
    assert "flat" not in kinds(score_features([draw(1000, 16, rng)], far))


def test_a_row_of_the_table_of_tails_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.trust.DRAWS", 4)
    monkeypatch.setattr("benchmarks.trust.WHOLE", 800)
    row = [text.strip() for text in tails("outliers", 8, 200, 300).strip("| ").split("|")]
    assert row[:4] == ["outliers", "8", "200", "300"]
    assert all(text.endswith("%") for text in [*row[4:7], row[9]])


def test_statistics_of_a_reference_tell_of_heavy_tails_too() -> None:
    rng = np.random.default_rng(5)
    real = FeatureSet("real", given=statistics_of(rng.normal(size=(3000, 8)), None))
    x = rng.normal(size=(800, 8))
    light = score_pair(FeatureSet("light", [x]), real).score
    x[5] *= 60.0
    heavy = score_pair(FeatureSet("heavy", [x]), real).score
    assert kinds(light) == []
    assert kinds(heavy) == ["tails"]
    assert light.fid_population is None


def test_images_that_stand_twice_count_once() -> None:
    world = World(32)
    covered, apart, alone = [], [], []
    for seed in range(60):
        once = world.draw(200)
        twice = np.random.default_rng(seed).permutation(np.repeat(once, 2, axis=0))
        rows = FeatureRows.of_array(twice)
        groups = groups_of(rows)
        found = frechet_score(
            rows, groups, world.reference, None, duplicates_together(rows, groups)
        )
        covered.append(found.fid_inf_low <= world.truth <= found.fid_inf_high)
        apart.append(found.fid_inf)
        alone.append(frechet_score(rows, groups, world.reference).fid_inf)
        single = FeatureRows.of_array(once)
        of_single = frechet_score(single, groups_of(single), world.reference)
        # Before the jackknife the two sets tell exactly the same.
        assert found.fid_inf_raw == pytest.approx(of_single.fid_inf_raw, rel=1e-9)
        assert found.fid == frechet_score(rows, groups, world.reference).fid
    # 60 draws of 95 %: four standard errors of 2.8 % below.
    assert np.mean(covered) >= 0.95 - 4 * 0.028
    spread = np.std(apart)
    assert abs(np.mean(apart) - world.truth) < 4 * spread / np.sqrt(60)
    assert np.mean(alone) - world.truth > 2 * spread  # what it was


def test_duplicates_lie_in_one_group_and_rows_keep_their_bits() -> None:
    rng = np.random.default_rng(6)
    x = rng.normal(size=(3000, 3)).astype(np.float32)
    x[[2900, 17]] = x[4]
    x[1500] = x[900]
    rows = FeatureRows.of([x[:1100], x[1100:]])
    together = duplicates_together(rows, groups_of(rows))
    assert together is not None
    assert together.duplicates == 3
    homes = {int(i): g for g, rows_of in enumerate(together.members) for i in rows_of}
    assert homes[4] == homes[17] == homes[2900]
    assert homes[900] == homes[1500]
    order = np.concatenate(together.members)
    assert sorted(order) == list(range(3000))
    assert (together.rows.read(0, 3000) == x[order]).all()
    assert together.effective[0] == pytest.approx(3000**2 / (2995 + 9 + 4))
    assert duplicates_together(FeatureRows.of_array(x[:17]), [slice(0, 17)]) is None


def test_copies_are_counted_and_said() -> None:
    rng = np.random.default_rng(7)
    real, made = rng.normal(size=(500, 8)), rng.normal(size=(400, 8))
    made[100:103] = real[:3] + 1e-6
    made[200:205] = made[0:5] + 1e-6
    made[300:307] = made[10:17]
    found = score(made, real)
    assert (found.duplicates, found.near_duplicates, found.memorised) == (7, 10, 3)
    assert [k for k in kinds(found) if k != "reference"] == ["duplicates", "near", "memorised"]
    texts = " ".join(doubt.text for doubt in doubts(found))
    assert "7 of 400 images equal an earlier one" in texts
    assert "3 of 400 images lie as near to one of the real images" in texts


def test_equal_images_alone_have_no_interval() -> None:
    found = score(np.ones((50, 4)), np.random.default_rng(8).normal(size=(100, 4)))
    assert found.fid_population is None
    assert found.duplicates == 49
    assert found.fid_low is None
    assert found.fid_inf is None
    assert "duplicates" in kinds(found)


def test_the_estimate_for_both_sides_agrees_with_quadrature_and_its_limits() -> None:
    values = np.random.default_rng(9).lognormal(size=30)

    def integrand(u: float, a: float, b: float) -> float:
        t = np.exp(u)
        s = (values / (values + t)).sum()
        slope = (values * t / (values + t) ** 2).sum()
        return np.sqrt(t) * slope / np.sqrt((1 - s / a) * (1 - s / b))

    for a, b in ((60.0, 45.0), (31.0, 400.0)):
        exact = 2.0 / np.pi * quad(integrand, -60, 60, (a, b), limit=400, points=[-5, 0, 5])[0]
        assert root_trace_population(values, a, b) == pytest.approx(exact, rel=1e-8)
        assert root_trace_population(values, a, b) == root_trace_population(values, b, a)
    # Both samples infinite: the roots themselves; one infinite: the one-sided estimate.
    assert root_trace_population(values, 1e12, 1e12) == pytest.approx(np.sqrt(values).sum())
    one = root_trace_population(values, 70.0, 1e12)
    assert one == pytest.approx(root_trace_infinity(values, 70), rel=1e-9)
    with pytest.raises(ValueError, match="both must exceed the 30"):
        root_trace_population(values, 70.0, 30.0)
    with pytest.raises(ValueError, match="an eigenvalue is -1"):
        root_trace_population([-1.0], 9.0, 9.0)


def test_a_small_reference_is_told_and_corrected_for() -> None:
    rng, d = np.random.default_rng(10), 32
    scale = np.exp(0.5 * rng.normal(size=d))
    found = [
        score(rng.normal(size=(300, d)) * scale, rng.normal(size=(90, d)) * scale)
        for _ in range(30)
    ]
    # Two sets of one population: the truth is 0.
    values = np.array([one.fid_population for one in found])
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(30)
    held = np.mean([one.fid_population_low <= 0.0 <= one.fid_population_high for one in found])
    assert held >= 0.95 - 4 * 0.04
    assert min(one.fid_inf for one in found) > 4 * values.std()
    assert all("reference" in kinds(one) for one in found)
    assert "the size of the reference (90 images)" in doubts(found[0])[-1].text


@pytest.mark.parametrize("case", ["by heart", "own captions", "same fixed shares"])
def test_images_that_are_not_independent_of_the_reference_are_told(case: str) -> None:
    rng, d, m = np.random.default_rng(11), 32, 90
    centres = rng.normal(size=(m if case == "own captions" else 10, d))
    asked, within = rng.permutation(m) % len(centres), 1.0 if case == "by heart" else 0.5

    def drawn(wanted: np.ndarray) -> np.ndarray:  # by a model that is right
        own = 0.0 if case == "by heart" else centres[wanted]
        return own + within * rng.normal(size=(len(wanted), d))

    real = drawn(asked)
    made = drawn(np.arange(7 * m) % len(centres))
    if case == "by heart":
        made = rng.multivariate_normal(real.mean(axis=0), np.cov(real, rowvar=False), size=600)
    found = score(made, real)
    assert found.fid_population_high < 0.0
    (said,) = (doubt.text for doubt in doubts(found) if doubt.kind == "dependent")
    assert "not independent of this reference" in said
    assert case in " ".join(said.replace("the reference's own", "own").split())
    assert "reference" not in kinds(found)
    if case == "by heart":
        part = found.fid_inf - found.fid_population
        honest = [score(drawn(np.zeros(600, int)), real) for _ in range(3)]
        assert part == pytest.approx(np.mean([one.fid_inf for one in honest]), rel=0.2)
        assert not any("dependent" in kinds(one) for one in honest)


def test_memorised_images_and_a_reference_of_copies_leave_no_distance_of_populations() -> None:
    rng = np.random.default_rng(14)
    real, made = rng.normal(size=(300, 4)), rng.normal(size=(300, 4))
    assert score(made, real).fid_population is not None
    assert score(np.vstack([made[:295], real[:5]]), real).fid_population is None
    assert score(made, np.repeat(real[:100], 3, axis=0)).fid_population is None


def test_moments_of_more_images_than_are_there_leave_no_distance_of_populations() -> None:
    rng = np.random.default_rng(18)
    real, made = rng.normal(size=(900, 4)), rng.normal(size=(300, 4))
    some = ScoreReference.of(real[:200], FeatureMoments.from_features(real))
    found = score_features([made], some)
    assert found.fid_population is None
    assert found.fid == score(made, real).fid
    assert found.kid == score(made, real[:200]).kid


def test_minus_zero_is_zero() -> None:
    x = np.random.default_rng(15).normal(size=(60, 9))
    x[0], x[1] = 0.0, -0.0
    assert score(x, x[2:]).duplicates == 1


def test_features_too_large_for_a_cube_are_refused() -> None:
    huge = 1e55 * np.random.default_rng(16).normal(size=(60, 3))
    with pytest.raises(ValueError, match="too large for KID"):
        score(huge, huge[::-1] + 1.0)


def test_the_bias_of_few_images_counts_both_sides() -> None:
    rng = np.random.default_rng(17)
    for m in (50, 100, 1000):
        found = score(rng.normal(size=(48, 64)), rng.normal(size=(m, 64)))
        assert found.fid_bias == pytest.approx(found.fid, rel=0.1)
    few = score(np.repeat(rng.normal(size=(30, 64)), 10, axis=0), rng.normal(size=(500, 64)))
    assert few.fid_bias == pytest.approx(few.fid, rel=0.15)
    assert "of 300 images, 30 of them different," in doubts(few)[-1].text


def test_a_large_reference_raises_no_doubt() -> None:
    rng = np.random.default_rng(13)
    real = ScoreReference.of(rng.normal(size=(5000, 4)))
    told = [kinds(score_features([1.1 * rng.normal(size=(200, 4))], real)) for _ in range(5)]
    assert sum(found != [] for found in told) <= 1


def test_two_jackknives_of_one_estimate_are_joined() -> None:
    a = jackknife(1.0, [0.9, 1.0, 1.2, 1.1], None)
    b = jackknife(1.0, [1.0, 1.3, 0.9, 1.1, 1.0], None)
    found = two_sided(a, b)
    assert found.value == pytest.approx(1.0 + (a.bias_corrected - 1.0) + (b.bias_corrected - 1.0))
    se2 = np.array([a.se**2, b.se**2])
    dof = se2.sum() ** 2 / (se2**2 / [3, 4]).sum()
    half = stats.t.ppf(0.975, dof) * np.sqrt(se2.sum())
    assert [found.low, found.high] == pytest.approx([found.value - half, found.value + half])
    sure = jackknife(2.0, [2.0, 2.0], None)
    assert two_sided(sure, sure).low == two_sided(sure, sure).high == 2.0


def test_a_reference_too_small_to_tell_is_said() -> None:
    rng = np.random.default_rng(11)
    found = score(rng.normal(size=(400, 64)), rng.normal(size=(40, 64)))
    assert found.fid_population is None
    assert kinds(found) == ["reference"]
    assert "the reference's 40 images are few for 64 features" in doubts(found)[0].text


def test_fid_of_fewer_images_than_features_states_its_bias() -> None:
    rng = np.random.default_rng(12)
    real = rng.normal(size=(6000, 96))
    found = score(rng.normal(size=(60, 96)), real)
    assert found.fid_inf is None
    # A perfect model's images: all of their FID is bias, but for their scatter about it.
    # (The reference's own scatter adds some, 2 % at 6,000.)
    assert found.fid_bias == pytest.approx(found.fid, rel=0.06)
    assert "few" in kinds(found)
    reference = Reference.of(FeatureMoments.from_features(real))
    # The factor is one of many, and with it the sample: 2 % is what samples scatter here.
    assert bias_of_few(reference, 60, 6000) == pytest.approx(found.fid_bias, rel=0.02)
    enough = score(rng.normal(size=(400, 96)), real)
    assert enough.fid_bias == enough.fid - enough.fid_inf


def test_doubts_of_a_grid_are_told_once_a_kind() -> None:
    rows = [
        cell_row(steps=10 * k, eta=0.0, variance="eta", n_images=1000, n_features=8,
                 n_reference=5000, fid=1.0, duplicates=k)
        for k in range(4)
    ]  # fmt: skip
    (said,) = doubts_of(rows)
    assert said.startswith("At S = 30, eta = 0: 3 of 1000 images equal an earlier one.")
    assert said.endswith("Likewise, less so, at S = 10, eta = 0; S = 20, eta = 0.")
    assert doubts_of(rows[:1]) == []
    alike = [replace(row, duplicates=1, fid=1.0 + row.steps % 20) for row in rows]
    for order in (alike, alike[::-1]):  # a table and a page may list cells in other orders
        (said,) = doubts_of(order)
        assert said.startswith("In every cell; such as at S = 20, eta = 0: 1 of 1000 images")
