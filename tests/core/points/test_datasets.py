"""Points in the plane: the data sets' frames, the noise model and its training, the scores."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from sklearn.datasets import make_swiss_roll

from ddim_core.diffusion.sampling import ImageNoise, sample
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import NoiseSpec, SamplerSpec
from ddim_core.points import model as point_model
from ddim_core.points.chamfer import chamfer_distance
from ddim_core.points.datasets import DATA_SETS, EVALUATION, TRAINING, stream, true_points
from ddim_core.points.row import PointRow
from ddim_core.points.score import floor, fresh_points, read_points, seed_mean, summary
from ddim_core.points.specs import PointModelSpec, PointSet, PointTrainSpec
from ddim_core.reports import point_figures

ALL = get_args(PointSet)
SMALL = PointTrainSpec(
    model=PointModelSpec(width=16, depth=2, point_waves=4), steps=12, batch_size=64, warmup_steps=4
)
SCHEDULE = NoiseSchedule.from_spec(NoiseSpec())
ALPHA_BAR = torch.tensor(SCHEDULE.alpha_bar)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_every_data_set_has_its_frame() -> None:
    assert set(DATA_SETS) == set(ALL)


@pytest.mark.parametrize("dataset", ALL)
def test_a_data_set_is_centred_with_standard_deviation_two(dataset: PointSet) -> None:
    n = 200_000
    points = true_points(dataset, n, stream(0, 0, EVALUATION)).astype(np.float64)
    # Five standard errors of each mean and of the mean square.
    error = points.std(axis=0) / n**0.5
    assert (np.abs(points.mean(axis=0)) < 5 * error).all()
    squares = (points**2).mean(axis=1)
    assert abs(squares.mean() - 4.0) < 5 * squares.std() / n**0.5


def test_the_swiss_roll_is_scikit_learns_seen_from_its_end_up_to_one_shift_and_scale() -> None:
    seed = np.random.RandomState(np.random.MT19937(np.random.SeedSequence([3, 0, EVALUATION])))
    raw, _ = make_swiss_roll(500, noise=0, hole=True, random_state=seed)
    ours = true_points("swiss-roll", 500, stream(3, 0, EVALUATION))
    sides = raw[1:, [0, 2]] - raw[:1, [0, 2]]
    ratio = (ours[1:] - ours[:1]) / sides
    # float32 rounding of coordinates of about 4, over the smallest side in this draw.
    assert ratio == pytest.approx(np.full_like(ratio, ratio[0, 0]), rel=1e-3)


@pytest.mark.parametrize("dataset", ["checkerboard", "gaussians"])
def test_eight_squares_or_gaussians_share_the_points_evenly(dataset: PointSet) -> None:
    points = true_points(dataset, 8000, stream(0, 0, EVALUATION))
    if dataset == "checkerboard":
        side = 2.0 / (16 / 12) ** 0.5
        cells = np.floor(points / side).astype(int) + 2
        assert (cells.sum(axis=1) % 2 == 0).all()
        parts = cells[:, 0] + 4 * cells[:, 1]
    else:
        parts = np.round(np.arctan2(points[:, 1], points[:, 0]) / (np.pi / 4)).astype(int) % 8
    counts = np.unique(parts, return_counts=True)[1]
    assert len(counts) == 8
    assert stats.chisquare(counts).pvalue > 1e-4


def test_streams_of_training_and_evaluation_share_no_point() -> None:
    a, b = (true_points("swiss-roll", 100, stream(0, 0, p)) for p in (TRAINING, EVALUATION))
    assert np.intersect1d(a[:, 0], b[:, 0]).size == 0
    assert (a == true_points("swiss-roll", 100, stream(0, 0, TRAINING))).all()


def test_an_unknown_data_set_and_no_points_are_refused_by_value() -> None:
    with pytest.raises(ValueError, match="dataset is 'spiral'; it must be one of swiss-roll"):
        true_points("spiral", 5, stream(0, 0, EVALUATION))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="n is 0; draw at least 1"):
        true_points("moons", 0, stream(0, 0, EVALUATION))
    with pytest.raises(ValueError, match="dataset is 'spiral'"):
        PointTrainSpec(dataset="spiral")  # type: ignore[arg-type]


def test_two_true_swiss_rolls_are_the_known_floor_apart() -> None:
    # Measured over 30 pairs: 0.396, each pair spread by 0.027; five standard errors of 20 pairs.
    found = floor("swiss-roll", 2048, 20)
    assert found.mean == pytest.approx(0.396, abs=0.03)
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.mean < found.high < 0.43


def test_an_untrained_model_is_the_best_linear_prediction_of_the_noise() -> None:
    model = point_model.start(SMALL).model
    x_0 = torch.from_numpy(true_points("swiss-roll", 20_000, stream(1, 0, EVALUATION)))
    eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    for t in (0, 100, 500, 999):
        a = float(ALPHA_BAR[t])
        x_t = a**0.5 * x_0 + (1 - a) ** 0.5 * eps
        with torch.no_grad():
            predicted = model(x_t, torch.full((len(x_t),), t))
        best = float((x_t * eps).sum() / (x_t * x_t).sum())
        # Slope of a regression on 40,000 numbers: four standard errors are below 0.02.
        assert float((predicted / x_t).mean()) == pytest.approx(best, abs=0.02)


def test_a_batch_is_a_function_of_seed_and_step_with_even_timesteps() -> None:
    first, again = (point_model.noisy_batch(SMALL, ALPHA_BAR, 5) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
    for other in (replace(SMALL, seed=1), SMALL):
        step = 5 if other.seed else 6
        assert not torch.equal(first[0], point_model.noisy_batch(other, ALPHA_BAR, step)[0])
    even = point_model.noisy_batch(replace(SMALL, batch_size=4000), ALPHA_BAR, 0)[1]
    counts = torch.bincount(even, minlength=1000)
    assert counts.min() >= 3
    assert counts.max() <= 5


def test_a_batch_has_the_noise_of_its_timesteps() -> None:
    x_t, t, eps = point_model.noisy_batch(replace(SMALL, batch_size=4096), ALPHA_BAR, 0)
    level = ALPHA_BAR[t, None]
    x_0 = (x_t - (1 - level).sqrt() * eps) / level.sqrt()
    middle = x_0[t < 700]
    # Taken back from float32 at alpha_bar above 0.006: rounding times 13; 4.7 is the outermost.
    assert float(middle.abs().max()) < 4.7
    radius = (middle * 6.631356903394773 / 2 + torch.tensor([3.0, 1 / np.pi])).norm(dim=1)
    assert float(radius.min()) > 1.5 * np.pi - 1e-3
    assert float(radius.max()) < 4.5 * np.pi + 1e-3


def test_training_gives_the_same_bits_again_and_needs_no_global_seed() -> None:
    states = []
    for noise in (0, 1):
        torch.manual_seed(noise)
        state = point_model.start(SMALL)
        list(point_model.train_points(SMALL, state))
        states.append(point_model.to_bytes(state.ema))
    assert states[0] == states[1]


def test_training_lowers_the_loss_below_that_of_the_best_linear_prediction() -> None:
    spec = replace(SMALL, steps=400, batch_size=512, model=PointModelSpec(width=32, depth=2))
    losses = [record.loss for record in point_model.train_points(spec, point_model.start(spec))]
    linear = float((4 * ALPHA_BAR / (4 * ALPHA_BAR + 1 - ALPHA_BAR)).mean())
    # 100 batches of 1024 numbers: the spread of their mean is below 1 % of it; 0.95 is five.
    assert np.mean(losses[-100:]) < 0.95 * linear


def test_a_model_survives_its_bytes() -> None:
    state = point_model.start(SMALL)
    list(point_model.train_points(SMALL, state))
    loaded = point_model.from_bytes(point_model.to_bytes(state.ema), SMALL.model, SMALL.noise)
    x, t = torch.ones(3, 2), torch.tensor([0, 500, 999])
    assert torch.equal(loaded(x, t), state.ema(x, t))


def test_a_schedule_that_ends_without_signal_is_refused() -> None:
    with pytest.raises(ValueError, match="alpha_bar ends at 0"):
        point_model.PointModel(SMALL.model, NoiseSpec(zero_snr=True))


def test_the_exact_model_of_the_roll_reaches_the_floor() -> None:
    """The sampler, the frame and the score together: what is left above the floor is a model's."""
    turns = np.interp(
        (np.arange(1500) + 0.5) / 1500, [0, 3 / 8, 5 / 8, 1], np.pi * np.arange(1.5, 5)
    )
    curve = np.stack([turns * np.cos(turns), turns * np.sin(turns)], axis=1)
    roll = torch.from_numpy((curve - [3.0, 1 / np.pi]) * (2 / 6.631356903394773)).float()

    def exact(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a = SCHEDULE.at(int(t[0]))
        weights = torch.softmax(-(torch.cdist(x, a**0.5 * roll) ** 2) / (2 * (1 - a)), dim=1)
        return (x - a**0.5 * weights @ roll) / (1 - a) ** 0.5

    noise = ImageNoise(0, range(2048), (2,))
    *_, last = sample(exact, SCHEDULE, SamplerSpec(steps=50), noise.x_T(), noise)
    # The floor is 0.396 and one pair spreads by 0.027: five of them above.
    assert chamfer_distance(last.x.numpy(), fresh_points("swiss-roll", 2048, 0)) < 0.53


def test_a_mean_over_seeds_has_students_interval() -> None:
    values = [0.5, 0.6, 0.9, 0.4, 0.7]
    found = seed_mean(values)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    assert seed_mean([0.5]).low is None
    assert seed_mean([0.0, 1.0]).low == 0.0


def row(eta: float, steps: int, chamfer: float, seed: int = 0) -> PointRow:
    return PointRow(
        cell_digest="c", model_digest="m", code_digest="c", dataset="swiss-roll",
        training_seed=seed, training_steps=1, training_seconds=1.0, steps=steps, eta=eta,
        variance="eta", spacing="uniform", timesteps=[], n_points=2048, sampling_seeds=[],
        chamfer=chamfer, chamfer_low=chamfer - 0.1, chamfer_high=chamfer + 0.1, chamfer_each=[],
        floor=0.4, floor_low=0.38, floor_high=0.42, nfe=steps, sample_seconds=1.0, created_at="",
    )  # fmt: skip


def test_the_reading_names_floor_best_setting_pass_mark_and_what_noise_does() -> None:
    said = " ".join(read_points([row(0.0, 50, 4.0), row(1.0, 50, 0.6), row(0.0, 10, 70.0)]))
    assert "0.40 [0.38, 0.42] apart: the floor" in said
    assert "0.60 [0.50, 0.70] at S = 50, eta = 1" in said
    assert "pass mark, below 60, is not met by 1 of 3 settings" in said
    assert "with less at eta = 1." in said
    assert "no difference is claimed" in " ".join(read_points([row(0, 50, 1.0), row(1, 50, 1.1)]))


def test_several_models_are_put_together_with_the_worst_of_them() -> None:
    (record,) = summary([row(0.0, 50, chamfer, seed) for seed, chamfer in enumerate([2, 3, 4])])
    assert (record.chamfer, record.worst, record.n_models) == (3.0, 4.0, 3)
    # Student's t of 2 degrees of freedom, 4.303, times 1 / sqrt(3).
    assert record.chamfer_high == pytest.approx(3 + 4.303 / 3**0.5, abs=1e-3)


def test_the_animation_has_all_frames_and_rests_on_the_last() -> None:
    clouds = [np.zeros((5, 2), np.float32) + i for i in range(3)]
    gif = point_figures.animation(clouds, [999, 0, -1], clouds[0], "S = 2")
    image = Image.open(io.BytesIO(gif))
    durations = []
    for frame in range(image.n_frames):
        image.seek(frame)
        durations.append(image.info["duration"])
    assert durations == [80, 80, 2500]
