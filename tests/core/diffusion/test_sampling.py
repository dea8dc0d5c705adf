"""Single steps, the sampling loop, its reverse, and guidance."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ddim_core.diffusion.guidance import guided
from ddim_core.diffusion.sampling import (
    ddim_step,
    direction_and_sigma,
    encode,
    plan,
    sample,
    x0_and_eps,
)
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import SamplerSpec
from tests.core.analytic import Mixture, MixtureModel, one_thread  # noqa: F401 (a fixture)

LINEAR = NoiseSchedule.linear(1000, 1e-4, 0.02)
ROUNDING = 1e-12  # float64, a few operations on numbers of order 1

unhurried = settings(deadline=None)  # a busy machine is no failure
powers = st.floats(1e-4, 0.9999)
etas = st.floats(0.0, 1.0)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def weights(alpha_bar_t: float, alpha_bar_s: float, eta: float) -> tuple[float, float, float]:
    """The step is linear: returns what x_t, eps and noise each contribute to x_s."""
    x_t, eps, noise = tensor(1, 0, 0), tensor(0, 1, 0), tensor(0, 0, 1)
    x_s, _ = ddim_step(x_t, eps, alpha_bar_t, alpha_bar_s, eta, noise)
    return float(x_s[0]), float(x_s[1]), float(x_s[2])


# One step


@given(powers, powers, etas)
@unhurried
def test_step_keeps_the_marginal_for_every_eta(low: float, high: float, eta: float) -> None:
    """x_t = sqrt(alpha_bar_t) x0 + sqrt(1 - alpha_bar_t) eps becomes the same at s (lemma 1)."""
    assume(low < high)
    from_x, from_eps, from_noise = weights(low, high, eta)
    assert from_x * low**0.5 == pytest.approx(high**0.5, abs=ROUNDING)
    of_eps = from_x * (1 - low) ** 0.5 + from_eps
    # x0 is x_t divided by sqrt(alpha_bar_t) >= 0.01 and loses two digits.
    assert of_eps**2 + from_noise**2 == pytest.approx(1 - high, abs=100 * ROUNDING)


@given(powers, powers, etas)
@unhurried
def test_step_noise_is_eta_times_the_ddpm_posterior_std(
    low: float, high: float, eta: float
) -> None:
    assume(low < high)
    beta = 1 - low / high
    posterior = (beta * (1 - high) / (1 - low)) ** 0.5
    assert weights(low, high, eta)[2] == pytest.approx(eta * posterior, abs=ROUNDING)


@given(powers, powers, etas)
@unhurried
def test_eps_direction_is_never_nan_even_where_rounding_passes_zero(
    low: float, high: float, eta: float
) -> None:
    assume(low < high)
    low /= 1e12  # as good as zero SNR, where 1 - alpha_bar_s - sigma^2 rounds to either side
    x_s, x0 = ddim_step(tensor(1.0), tensor(0.5), low, high, eta, tensor(0.1))
    assert torch.isfinite(x_s).all()
    assert torch.isfinite(x0).all()


@given(powers, powers)
@unhurried
def test_step_at_eta_zero_ignores_the_noise(low: float, high: float) -> None:
    assume(low < high)
    x_t, eps = tensor(0.3, -2.0), tensor(1.0, 0.4)
    with_noise = ddim_step(x_t, eps, low, high, 0.0, tensor(1e6, float("nan")))[0]
    assert torch.equal(with_noise, ddim_step(x_t, eps, low, high, 0.0, None)[0])


@given(powers, etas)
@unhurried
def test_last_step_lands_on_the_predicted_clean_image_without_noise(low: float, eta: float) -> None:
    x_s, x0 = ddim_step(tensor(0.3), tensor(1.0), low, 1.0, eta, tensor(1e6))
    assert torch.equal(x_s, x0)
    expected = (0.3 - (1 - low) ** 0.5) / low**0.5
    assert float(x0) == pytest.approx(expected, rel=ROUNDING, abs=ROUNDING)


@given(powers, powers, powers)
@unhurried
def test_two_deterministic_steps_with_the_same_noise_are_one(a: float, b: float, c: float) -> None:
    low, middle, high = sorted((a, b, c))
    assume(low < middle < high)
    x, eps = tensor(0.3, -2.0), tensor(1.0, 0.4)
    via = ddim_step(ddim_step(x, eps, low, middle, 0.0, None)[0], eps, middle, high, 0.0, None)[0]
    direct = ddim_step(x, eps, low, high, 0.0, None)[0]
    torch.testing.assert_close(via, direct, rtol=1e-10, atol=1e-10)  # divided by 0.01 at most


@pytest.mark.parametrize(
    ("low", "high"), [(0.5, 0.5), (0.5, 0.4), (0.0, 0.5), (0.5, 1.1), (float("nan"), 0.5)]
)
def test_step_that_removes_no_noise_is_refused_with_both_powers(low: float, high: float) -> None:
    with pytest.raises(ValueError, match=f"from alpha_bar {low} to {high}"):
        ddim_step(tensor(1.0), tensor(1.0), low, high, 0.0, None)


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan")])
def test_step_refuses_eta_outside_zero_to_one(eta: float) -> None:
    with pytest.raises(ValueError, match=f"eta is {eta}"):
        ddim_step(tensor(1.0), tensor(1.0), 0.5, 0.9, eta, tensor(1.0))


def test_step_refuses_shapes_that_would_broadcast_and_missing_noise() -> None:
    x = torch.zeros(4, 2)
    with pytest.raises(ValueError, match=r"eps has shape \(4, 1\)"):
        ddim_step(x, x[:, :1], 0.5, 0.9, 0.0, None)
    with pytest.raises(ValueError, match=r"noise has shape \(2,\)"):
        ddim_step(x, x, 0.5, 0.9, 1.0, x[0])
    with pytest.raises(ValueError, match="give a draw"):
        ddim_step(x, x, 0.5, 0.9, 1.0, None)


@given(st.floats(0.01, 0.99), st.floats(-3, 3), st.floats(-3, 3))
@unhurried
def test_every_prediction_type_says_the_same(alpha_bar: float, x0: float, eps: float) -> None:
    signal, noise = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
    x_t = tensor(signal * x0 + noise * eps)
    for kind, prediction in {
        "epsilon": eps,
        "sample": x0,
        "v_prediction": signal * eps - noise * x0,
    }.items():
        found_x0, found_eps = x0_and_eps(tensor(prediction), x_t, alpha_bar, kind)  # type: ignore[arg-type]
        assert float(found_x0) == pytest.approx(x0, abs=100 * ROUNDING)
        assert float(found_eps) == pytest.approx(eps, abs=100 * ROUNDING)


# The loop


class Recorder:
    """A network that predicts a constant and remembers how it was called."""

    def __init__(self, value: float = 0.5) -> None:
        self.value = value
        self.calls: list[tuple[torch.Size, Tensor]] = []

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls.append((x.shape, t))
        return torch.full_like(x, self.value)


def draws(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Any:
    def noise(i: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(i), dtype=dtype)

    return noise


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 2), (5,), (2, 3, 4, 4)])
def test_sample_keeps_dtype_and_shape_and_asks_with_int64_timesteps(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    model = Recorder()
    spec = SamplerSpec(steps=4, eta=0.5)
    records = list(sample(model, LINEAR, spec, torch.zeros(shape, dtype=dtype), draws(shape)))
    assert [(record.t, record.s) for record in records] == [
        (750, 500),
        (500, 250),
        (250, 0),
        (0, -1),
    ]
    for record, (seen, t) in zip(records, model.calls, strict=True):
        assert record.x.shape == record.x0_hat.shape == seen == shape
        assert record.x.dtype == record.x0_hat.dtype == dtype
        assert t.dtype == torch.int64
        assert t.tolist() == [record.t] * shape[0]


def test_noise_is_drawn_only_where_it_is_used() -> None:
    asked: list[int] = []

    def noise(i: int) -> Tensor:
        asked.append(i)
        return torch.zeros(2, 2)

    list(sample(Recorder(), LINEAR, SamplerSpec(steps=5, eta=1.0), torch.zeros(2, 2), noise))
    assert asked == [0, 1, 2, 3]  # not on the last of five
    asked.clear()
    list(sample(Recorder(), LINEAR, SamplerSpec(steps=5), torch.zeros(2, 2), noise))
    assert asked == []


def test_sample_is_the_composition_of_single_steps() -> None:
    x = draws((4, 3))(99)
    noise, model = draws((4, 3)), MixtureModel(MIXTURE_3D, LINEAR.alpha_bar)
    spec = SamplerSpec(steps=7, eta=0.7, spacing="linspace")
    for i, record in enumerate(sample(model, LINEAR, spec, x, noise)):
        eps = model(x, torch.full((4,), record.t))
        x, x0 = ddim_step(x, eps, LINEAR.at(record.t), LINEAR.at(record.s), 0.7, noise(i))
        torch.testing.assert_close(record.x, x, rtol=0, atol=ROUNDING)
        torch.testing.assert_close(record.x0_hat, x0, rtol=0, atol=ROUNDING)
        x = record.x


def test_everything_checkable_is_refused_before_the_model_is_asked() -> None:
    def model(x: Tensor, t: Tensor) -> Tensor:
        raise AssertionError("asked")

    x = torch.zeros(2, 2)
    with pytest.raises(ValueError, match="alpha_bar is 0 at timestep 999"):
        sample(model, LINEAR.zero_terminal_snr(), SamplerSpec(steps=5, spacing="trailing"), x)
    with pytest.raises(ValueError, match=r"eta 0\.5 add noise"):
        sample(model, LINEAR, SamplerSpec(steps=5, eta=0.5), x)
    with pytest.raises(ValueError, match="1001 steps of 1000"):
        sample(model, LINEAR, SamplerSpec(steps=1001), x)
    with pytest.raises(ValueError, match=r"x_T is torch.int64"):
        sample(model, LINEAR, SamplerSpec(steps=5), torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"eta is 0.5; only eta 0"):
        encode(model, LINEAR, SamplerSpec(steps=5, eta=0.5), x)


def test_model_output_of_another_shape_is_refused() -> None:
    def model(x: Tensor, t: Tensor) -> Tensor:
        return x[:, :1]

    with pytest.raises(ValueError, match=r"model's output has shape \(2, 1\)"):
        next(sample(model, LINEAR, SamplerSpec(steps=5), torch.zeros(2, 2)))


def test_single_step_at_the_last_timestep_is_its_predicted_clean_image() -> None:
    spec = SamplerSpec(steps=1, spacing="trailing", prediction_type="sample")
    (record,) = sample(Recorder(0.25), LINEAR, spec, torch.ones(2, 2))
    assert torch.equal(record.x, torch.full((2, 2), 0.25))


def test_zero_snr_can_be_sampled_from_v_prediction_at_every_eta() -> None:
    schedule = LINEAR.zero_terminal_snr()
    model = MixtureModel(MIXTURE_3D, schedule.alpha_bar, "v_prediction")
    for eta in (0.0, 0.5, 1.0):
        spec = SamplerSpec(10, eta, spacing="trailing", prediction_type="v_prediction")
        for record in sample(model, schedule, spec, draws((4, 3))(99), draws((4, 3))):
            assert torch.isfinite(record.x).all()


# Clipping, thresholding, sigma-hat


def test_clip_bounds_x0_and_rederiving_takes_eps_from_it() -> None:
    x = tensor(3.0, 0.1)
    base = SamplerSpec(steps=2, clip=True, clip_range=0.8)
    t, s = LINEAR.at(500), LINEAR.at(0)
    clipped = ((x - (1 - t) ** 0.5 * 0.5) / t**0.5).clamp(-0.8, 0.8)
    kept = next(sample(Recorder(0.5), LINEAR, base, x))
    torch.testing.assert_close(kept.x0_hat, clipped, rtol=0, atol=ROUNDING)
    expected = s**0.5 * clipped + (1 - s) ** 0.5 * 0.5
    torch.testing.assert_close(kept.x, expected, rtol=0, atol=ROUNDING)

    rederived = next(sample(Recorder(0.5), LINEAR, dataclasses.replace(base, rederive_eps=True), x))
    eps = (x - t**0.5 * clipped) / (1 - t) ** 0.5
    expected = s**0.5 * clipped + (1 - s) ** 0.5 * eps
    torch.testing.assert_close(rederived.x, expected, rtol=0, atol=ROUNDING)


def test_dynamic_threshold_is_the_quantile_of_each_image() -> None:
    x = torch.linspace(-2.0, 2.0, 101).repeat(2, 1) * torch.tensor([[1.0], [0.25]])
    spec = SamplerSpec(
        1, spacing="trailing", prediction_type="sample", dynamic_threshold=0.9, clip_range=3.0
    )
    (record,) = sample(lambda x, t: x, LINEAR, spec, x)
    limit = torch.quantile(x[0].abs(), 0.9)
    torch.testing.assert_close(record.x[0], x[0].clamp(-limit, limit) / limit)
    torch.testing.assert_close(record.x[1], x[1])  # all within [-1, 1]: only clipped
    (bounded,) = sample(lambda x, t: x, LINEAR, dataclasses.replace(spec, clip_range=1.2), x)
    torch.testing.assert_close(bounded.x[0], x[0].clamp(-1.2, 1.2) / 1.2)


@pytest.mark.parametrize("clip", [False, True])
def test_sigma_hat_is_the_ddpm_posterior_mean_with_variance_beta(clip: bool) -> None:
    x, noise = tensor(3.0, 0.1), tensor(0.7, -1.1)
    spec = SamplerSpec(steps=2, variance="sigma_hat", clip=clip)
    first, last = sample(Recorder(0.5), LINEAR, spec, x, lambda i: noise)
    t, s = LINEAR.at(500), LINEAR.at(0)
    beta = 1 - t / s
    x0 = (x - (1 - t) ** 0.5 * 0.5) / t**0.5
    x0 = x0.clamp(-1, 1) if clip else x0
    mean = (s**0.5 * beta * x0 + (1 - beta) ** 0.5 * (1 - s) * x) / (1 - t)
    torch.testing.assert_close(first.x, mean + beta**0.5 * noise, rtol=0, atol=ROUNDING)
    assert torch.equal(last.x, last.x0_hat)


# Whole trajectories with exact networks

MIXTURE_3D = Mixture.of([[1.0, -0.5, 0.2], [-0.7, 0.6, 0.0]], [0.2, 0.4], [0.4, 0.6])


@given(st.integers(1, 60), etas, st.floats(-1, 1), st.floats(0.001, 0.05), st.data())
@settings(max_examples=50, deadline=None)
def test_point_mass_is_reached_exactly_by_every_sampler(
    n_train: int, eta: float, mean: float, beta: float, data: st.DataObject
) -> None:
    """For data in one point x_t is on the straight line to it: no step makes an error."""
    schedule = NoiseSchedule.quad(n_train, beta / 10, beta)
    spacing = data.draw(st.sampled_from(["uniform", "quad", "leading", "linspace", "trailing"]))
    spec = SamplerSpec(data.draw(st.integers(1, n_train)), eta, spacing=spacing)  # type: ignore[arg-type]

    def model(x: Tensor, t: Tensor) -> Tensor:
        alpha_bar = schedule.at(int(t[0]))
        return (x - alpha_bar**0.5 * mean) / (1 - alpha_bar) ** 0.5

    *_, last = sample(model, schedule, spec, tensor(-1.0, 2.0)[:, None], draws((2, 1)))
    # x0 = (x - sqrt(1 - a) eps) / sqrt(a) with a >= 0.2
    torch.testing.assert_close(last.x, torch.full_like(last.x, mean), rtol=0, atol=1e-11)


def gaussian_outcome(eta: float, n_steps: int) -> tuple[float, float]:
    """Mean and sd of what comes out for data N(0.6, 0.3^2), propagated without sampling error."""
    schedule = LINEAR.zero_terminal_snr()
    model = MixtureModel(Mixture.of([[0.6]], [0.3], [1.0]), schedule.alpha_bar, "v_prediction")
    spec = SamplerSpec(n_steps, eta, spacing="trailing", prediction_type="v_prediction")
    # Each step is affine, x_s = offset + gain x_t + sigma noise; two trajectories, one of them
    # without noise and one with noise 1, tell the gain by their distance.
    noise = x = tensor(0.0, 1.0)[:, None]
    distance, variance = 1.0, 1.0
    trajectory = sample(model, schedule, spec, x, lambda i: noise)
    for record, step in zip(trajectory, plan(schedule, spec), strict=True):
        reached = float(record.x[1] - record.x[0])
        _, sigma = direction_and_sigma(step.alpha_bar_t, step.alpha_bar_s, eta)
        gain = (reached - sigma) / distance
        distance, variance = reached, gain**2 * variance + sigma**2
    return float(record.x[0]), variance**0.5


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_exact_gaussian_is_reached_with_an_error_that_falls_with_the_steps(
    eta: float,
) -> None:
    errors = []
    for n_steps in (10, 100, 1000):
        mean, sd = gaussian_outcome(eta, n_steps)
        errors.append(abs(mean - 0.6) + abs(sd - 0.3))
    assert errors[1] < errors[0] / 3
    assert errors[2] < errors[1] / 3
    assert errors[2] < 0.005  # first order in 1 / S; measured worst 0.0038, at eta 1


@pytest.mark.parametrize("spacing", ["uniform", "quad", "leading", "linspace", "trailing"])
def test_decoding_an_encoding_returns_the_image_the_better_the_more_steps(spacing: Any) -> None:
    images = MIXTURE_3D.draw(64, seed=5)
    errors = []
    for n_steps in (10, 40, 160):
        spec = SamplerSpec(n_steps, spacing=spacing)
        model = MixtureModel(MIXTURE_3D, LINEAR.alpha_bar)
        *_, encoded = encode(model, LINEAR, spec, images)
        *_, decoded = sample(model, LINEAR, spec, encoded.x)
        errors.append(float((decoded.x - images).abs().mean()))
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 2
    assert errors[2] < 0.02


@st.composite
def schedules(draw: st.DrawFn) -> NoiseSchedule:
    """Schedules of 300 to 1000 steps that begin finely and end in noise.

    The first noise is little beside the data's own variance: no number of steps makes up for a
    schedule (such as `constant`) that begins coarsely.
    """
    n_train = draw(st.integers(300, 1000))
    end = draw(st.floats(20.0, 30.0)) / n_train  # the sum of the betas stays that of T = 1000
    kind = draw(st.sampled_from(["linear", "quad", "sigmoid", "cosine", "rough"]))
    match kind:
        case "linear":
            return NoiseSchedule.linear(n_train, end / 200, end)
        case "quad":
            return NoiseSchedule.quad(n_train, end / 15, end)
        case "sigmoid":
            return NoiseSchedule.sigmoid(n_train, end / 200, end)
        case "cosine":
            return NoiseSchedule.cosine(n_train)
    rough = np.random.default_rng(draw(st.integers(0, 10**6))).uniform(0.1, 1.9, n_train)
    return NoiseSchedule.from_betas(rough * np.linspace(end / 200, end, n_train))


spacings = st.sampled_from(["uniform", "leading", "linspace", "trailing"])


def affine_outcome(schedule: NoiseSchedule, spec: SamplerSpec) -> tuple[float, float]:
    """Mean and sd of what comes out for data N(0.6, 0.3^2), from the exact x_t at the first t."""
    model = MixtureModel(Mixture.of([[0.6]], [0.3], [1.0]), schedule.alpha_bar)
    steps = plan(schedule, spec)
    start = steps[0].alpha_bar_t
    mean, variance = start**0.5 * 0.6, start * 0.3**2 + 1.0 - start
    # Each step is affine: a trajectory without noise and one with noise 1 tell its gain.
    noise = tensor(0.0, 1.0)[:, None]
    x, distance = noise + mean, 1.0
    for record, step in zip(sample(model, schedule, spec, x, lambda i: noise), steps, strict=True):
        _, sigma = direction_and_sigma(step.alpha_bar_t, step.alpha_bar_s, spec.eta)
        reached = float(record.x[1] - record.x[0])
        variance = ((reached - sigma) / distance) ** 2 * variance + sigma**2
        distance = reached
    return float(record.x[0]), variance**0.5


@given(schedules(), etas, spacings)
@settings(max_examples=15, deadline=None)
def test_steps_over_any_schedule_compose_to_the_exact_gaussian(
    schedule: NoiseSchedule, eta: float, spacing: Any
) -> None:
    """The mean is exact up to rounding; the sd is off by O(1 / S)."""
    errors = []
    for n_steps in (schedule.n_train // 10, schedule.n_train):
        mean, sd = affine_outcome(schedule, SamplerSpec(n_steps, eta, spacing=spacing))
        assert mean == pytest.approx(0.6, abs=1e-9)
        errors.append(abs(sd - 0.3))
    assert errors[1] < errors[0] / 3  # a tenth of the step; measured least 3.8
    assert errors[1] < 0.03  # measured worst 0.018


@given(schedules(), spacings)
@settings(max_examples=15, deadline=None)
def test_decoding_an_encoding_over_any_schedule_errs_by_one_over_the_steps(
    schedule: NoiseSchedule, spacing: Any
) -> None:
    images, model = MIXTURE_3D.draw(16, seed=5), MixtureModel(MIXTURE_3D, schedule.alpha_bar)
    errors = []
    for n_steps in (schedule.n_train // 16, schedule.n_train // 4):
        spec = SamplerSpec(n_steps, spacing=spacing)
        *_, encoded = encode(model, schedule, spec, images)
        *_, decoded = sample(model, schedule, spec, encoded.x)
        errors.append(float((decoded.x - images).abs().mean()))
    assert errors[1] < errors[0] / 2  # a quarter of the step; measured least 2.8
    assert errors[1] < 0.05  # measured worst 0.028


def test_encoding_takes_the_same_steps_from_clean_to_noisy() -> None:
    model, spec = Recorder(), SamplerSpec(steps=4, spacing="trailing")
    records = list(encode(model, LINEAR, spec, torch.zeros(2, 3)))
    assert [(record.t, record.s) for record in records] == [
        (249, -1),
        (499, 249),
        (749, 499),
        (999, 749),
    ]
    assert [int(t[0]) for _, t in model.calls] == [0, 249, 499, 749]


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_encoding_starts_from_the_clean_image_itself(kind: Any) -> None:
    images, model = torch.full((2, 3), 0.7), Recorder(0.5)
    spec = SamplerSpec(steps=4, spacing="trailing", prediction_type=kind)
    first = next(encode(model, LINEAR, spec, images))
    assert torch.equal(first.x0_hat, images)
    _, eps = x0_and_eps(torch.full((2, 3), 0.5), images, LINEAR.at(0), kind)
    expected = LINEAR.at(249) ** 0.5 * images + (1 - LINEAR.at(249)) ** 0.5 * eps
    torch.testing.assert_close(first.x, expected)


def test_encoding_images_of_a_gaussian_gives_standard_noise() -> None:
    images = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None] * 0.3 + 0.6
    model = MixtureModel(Mixture.of([[0.6]], [0.3], [1.0]), LINEAR.alpha_bar)
    *_, encoded = encode(model, LINEAR, SamplerSpec(steps=1000), images)
    # The ODE carries quantiles to quantiles; first-order error of 1000 steps, and alpha_bar_T.
    torch.testing.assert_close(
        encoded.x[:, 0], torch.linspace(-2, 2, 5, dtype=torch.float64), rtol=0, atol=0.02
    )


# Guidance


class Labelled:
    def __init__(self) -> None:
        self.batches: list[tuple[int, list[int], list[int]]] = []

    def __call__(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        self.batches.append((len(x), t.tolist(), labels.tolist()))
        return x + labels[:, None]


def test_guidance_moves_away_from_the_unlabelled_prediction_in_one_doubled_batch() -> None:
    model, x = Labelled(), torch.zeros(2, 3)
    t, labels = torch.tensor([4, 4]), torch.tensor([1, 2])
    out = guided(model, labels, 10, 3.0)(x, t)
    # eps_u = 10; eps_c = 1, 2: 10 + 3 (1 - 10) = -17, 10 + 3 (2 - 10) = -14
    assert out[:, 0].tolist() == [-17.0, -14.0]
    assert model.batches == [(4, [4] * 4, [10, 10, 1, 2])]


@pytest.mark.parametrize(("scale", "seen"), [(1.0, [1, 2]), (0.0, [10, 10])])
def test_guidance_of_one_or_zero_runs_one_half_only(scale: float, seen: list[int]) -> None:
    model = Labelled()
    guided(model, torch.tensor([1, 2]), 10, scale)(torch.zeros(2, 3), torch.tensor([4, 4]))
    assert model.batches == [(2, [4, 4], seen)]


def test_guidance_takes_embeddings_as_labels() -> None:
    def model(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        return labels.sum(1, keepdim=True).expand_as(x)

    embeddings, null = torch.ones(2, 4), torch.zeros(4)
    out = guided(model, embeddings, null, 2.0)(torch.zeros(2, 3), torch.tensor([4, 4]))
    assert torch.equal(out, torch.full((2, 3), 8.0))
