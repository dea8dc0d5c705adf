"""Replays trajectories recorded from the official DDIM code and from diffusers 0.42.1.

The network is the exact one of a Gaussian mixture, so agreement is limited by rounding only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from numpy.typing import NDArray
from torch import Tensor

from ddim_core.diffusion.sampling import _denoise, ddim_step, plan, sample
from ddim_core.diffusion.schedule import NoiseSchedule, step_pairs, timesteps
from ddim_core.diffusion.specs import SamplerSpec
from tests.core.analytic import Mixture, MixtureModel, one_thread  # noqa: F401 (a fixture)

GOLDEN = Path(__file__).parents[2] / "golden"

FLOAT64 = 1e-10  # rounding of up to 1000 steps in float64; measured worst 4e-13
# Diffusers keeps alpha_bar in float32 (6e-8 relative) and works its coefficients out from it, also
# for float64 images; a trajectory adds up to 30 steps of that. Measured worst: 1.6e-6. With its
# table widened to float64 nothing of it is left: see the test of that.
FLOAT32_COEFFICIENTS = 2e-6
# Six rows amplify that rounding: x moves to level 3 and is then read as level 0, whose exact
# network is steep. Measured worst 1.7e-5; one step at a time they agree like all others.
AMPLIFIED = {"timestep_spacing": "linspace", "S": 20, "eta": 1.0, "clip_sample": False}
AMPLIFIED_FLOAT32_COEFFICIENTS = 2e-5
ONE_STEP = 5e-7  # float32 coefficients of one step; measured worst 3.6e-7


class Recorded(NamedTuple):
    arrays: dict[str, NDArray[Any]]
    meta: dict[str, Any]
    mixture: Mixture
    x_T: Tensor  # noqa: N815 (the paper's name)
    noise: Tensor

    def images(self, x: Tensor) -> NDArray[np.float64]:
        return x.reshape(8, 4).numpy()


def load(name: str) -> Recorded:
    with np.load(GOLDEN / name) as file:
        arrays = dict(file)
    return Recorded(
        arrays,
        json.loads(str(arrays["meta"])),
        Mixture.of(arrays["means"], arrays["sds"], arrays["weights"]),
        torch.from_numpy(arrays["x_T"]).double(),
        torch.from_numpy(arrays["noise"]).double(),
    )


OFFICIAL = load("ddim_official.npz")
DIFFUSERS = load("ddim_diffusers.npz")


# The official code


@pytest.mark.parametrize("config", OFFICIAL.meta["configs"], ids=lambda config: config["key"])
def test_official_trajectory_is_replayed_to_float64_rounding(config: dict[str, Any]) -> None:
    schedule = NoiseSchedule.from_betas(OFFICIAL.arrays["betas"])
    sequence = OFFICIAL.arrays[f"seq/{config['skip']}/S{config['S']}"].tolist()
    pairs = list(step_pairs(sequence[::-1]))
    # Repeated timesteps change nothing there, but use up a draw of noise.
    executed = [i for i, (t, s) in enumerate(pairs) if t != s]
    hat = config["sampler"] == "ddpm_noisy"
    spec = SamplerSpec(
        steps=config["S"],
        eta=0.0 if hat else config["eta"],
        variance="sigma_hat" if hat else "eta",
        spacing=config["skip"],
        clip=hat,  # ddpm_noisy clips, generalized does not
    )
    model = MixtureModel(OFFICIAL.mixture, schedule.alpha_bar)
    records = list(
        sample(model, schedule, spec, OFFICIAL.x_T, lambda i: OFFICIAL.noise[executed[i]])
    )

    assert [(record.t, record.s) for record in records] == [pairs[i] for i in executed]
    expected = OFFICIAL.arrays[config["key"] + "/f64/x0"]
    np.testing.assert_allclose(OFFICIAL.images(records[-1].x), expected, rtol=0, atol=FLOAT64)
    for n_steps, expected in zip(
        config["xt_after_steps"], OFFICIAL.arrays[config["key"] + "/f64/xt"], strict=True
    ):
        done = sum(i < n_steps for i in executed)
        np.testing.assert_allclose(
            OFFICIAL.images(records[done - 1].x), expected, rtol=0, atol=FLOAT64
        )


def test_official_schedule_is_the_linear_one() -> None:
    meta = OFFICIAL.meta
    schedule = NoiseSchedule.linear(meta["T"], meta["beta_start"], meta["beta_end"])
    expected = NoiseSchedule.from_betas(OFFICIAL.arrays["betas"])
    np.testing.assert_array_equal(schedule.alpha_bar, expected.alpha_bar)


@pytest.mark.parametrize("spacing", ["uniform", "quad"])
@pytest.mark.parametrize("n_steps", [5, 7, 10, 20, 30, 50, 100, 1000])
def test_timesteps_are_the_official_ones_without_repeats(spacing: Any, n_steps: int) -> None:
    sequence = OFFICIAL.arrays[f"seq/{spacing}/S{n_steps}"].tolist()
    assert timesteps(1000, n_steps, spacing) == sorted(set(sequence), reverse=True)


# Diffusers


def setting(row: dict[str, Any]) -> tuple[MixtureModel, NoiseSchedule, SamplerSpec]:
    table = "abar32_zero_snr" if row["rescale_betas_zero_snr"] else "abar32"
    schedule = NoiseSchedule(DIFFUSERS.arrays[table])
    spec = SamplerSpec(
        steps=row["S"],
        eta=row["eta"],
        spacing=row["timestep_spacing"],
        steps_offset=row["steps_offset"],
        prediction_type=row["prediction_type"],
        clip=row["clip_sample"],
        rederive_eps=row["use_clipped_model_output"],
    )
    return MixtureModel(DIFFUSERS.mixture, schedule.alpha_bar, spec.prediction_type), schedule, spec


def rows(**wanted: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    for i, row in enumerate(DIFFUSERS.meta["rows"]):
        if all(row[name] == value for name, value in wanted.items()):
            yield i, row


def diffusers_pairs(row: dict[str, Any]) -> list[tuple[int, int]]:
    stride = 1000 // row["S"]
    listed = timesteps(1000, row["S"], row["timestep_spacing"], row["steps_offset"])
    return [(t, max(t - stride, -1)) for t in listed]


def same_path(row: dict[str, Any]) -> bool:
    listed = timesteps(1000, row["S"], row["timestep_spacing"], row["steps_offset"])
    return row["set_alpha_to_one"] and diffusers_pairs(row) == list(step_pairs(listed))


def one_step(row: dict[str, Any], x: Tensor, t: int, s: int, noise: Tensor) -> Tensor:
    """Our formulas for one step of diffusers' choice, with its final alpha_bar."""
    model, schedule, spec = setting(row)
    final = 1.0 if row["set_alpha_to_one"] else schedule.at(0)
    alpha_bar_s = final if s < 0 else schedule.at(s)
    x0, eps = _denoise(model, spec, x, t, schedule.at(t))
    if alpha_bar_s == schedule.at(t):  # diffusers' last step from timestep 0 removes no noise
        return alpha_bar_s**0.5 * x0 + (1.0 - alpha_bar_s) ** 0.5 * eps
    return ddim_step(x, eps, schedule.at(t), alpha_bar_s, spec.eta, noise, x0)[0]


def replay_over_diffusers_steps(row: dict[str, Any]) -> Tensor:
    x = DIFFUSERS.x_T
    for (t, s), noise in zip(diffusers_pairs(row), DIFFUSERS.noise, strict=False):
        x = one_step(row, x, t, s, noise)
    return x


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
def test_our_formulas_over_diffusers_steps_give_its_images_in_every_row(
    spacing: str, prediction_type: str
) -> None:
    chosen = rows(timestep_spacing=spacing, prediction_type=prediction_type, finite=True)
    errors = {
        i: np.abs(
            DIFFUSERS.images(replay_over_diffusers_steps(row)) - DIFFUSERS.arrays["final_f64"][i]
        ).max()
        for i, row in chosen
    }
    amplified = {i for i, row in rows(**AMPLIFIED, rescale_betas_zero_snr=False)}
    assert len(errors) >= 42  # half of the zero-SNR epsilon rows are NaN there
    for i, error in errors.items():
        allowed = AMPLIFIED_FLOAT32_COEFFICIENTS if i in amplified else FLOAT32_COEFFICIENTS
        assert error < allowed, DIFFUSERS.meta["rows"][i]


def test_rows_that_amplify_rounding_agree_with_diffusers_at_each_single_step() -> None:
    chosen = [row for _, row in rows(**AMPLIFIED, rescale_betas_zero_snr=False)]
    assert len(chosen) == 6
    for row in chosen:
        model, _, _ = setting(row)
        peer = DDIMScheduler(
            trained_betas=DIFFUSERS.arrays["betas"],
            clip_sample=False,
            set_alpha_to_one=row["set_alpha_to_one"],
            timestep_spacing="linspace",
            prediction_type=row["prediction_type"],
        )
        peer.set_timesteps(row["S"])
        x = DIFFUSERS.x_T
        for (t, s), noise in zip(diffusers_pairs(row), DIFFUSERS.noise, strict=False):
            ours = one_step(row, x, t, s, noise)
            x = peer.step(model(x, torch.full((8,), t)), t, x, 1.0, variance_noise=noise)[0]
            torch.testing.assert_close(ours, x, rtol=0, atol=ONE_STEP)


def sampled(row: dict[str, Any]) -> NDArray[np.float64]:
    model, schedule, spec = setting(row)
    *_, last = sample(model, schedule, spec, DIFFUSERS.x_T, lambda i: DIFFUSERS.noise[i])
    return DIFFUSERS.images(last.x)


def test_sample_gives_diffusers_images_wherever_it_takes_the_same_steps() -> None:
    chosen = [(i, row) for i, row in rows(finite=True) if same_path(row)]
    assert len(chosen) == 327
    for i, row in chosen:
        expected = DIFFUSERS.arrays["final_f64"][i]
        np.testing.assert_allclose(
            sampled(row), expected, rtol=0, atol=FLOAT32_COEFFICIENTS, err_msg=str(row)
        )


def test_sample_goes_to_the_next_listed_timestep_where_diffusers_goes_elsewhere() -> None:
    chosen = [
        (i, row)
        for i, row in rows(finite=True, set_alpha_to_one=True, eta=0.0)
        if not same_path(row)
    ]
    assert {row["timestep_spacing"] for _, row in chosen} == {"linspace", "trailing"}
    for i, row in chosen:
        _, schedule, spec = setting(row)
        listed = [step.t for step in plan(schedule, spec)]
        assert [step.s for step in plan(schedule, spec)] == [*listed[1:], -1]
        difference = np.abs(sampled(row) - DIFFUSERS.arrays["final_f64"][i]).max()
        assert difference > 100 * FLOAT32_COEFFICIENTS, row


def test_sample_ends_on_clean_data_where_set_alpha_to_one_is_false() -> None:
    chosen = [
        (i, row)
        for i, row in rows(finite=True, set_alpha_to_one=False, eta=0.0)
        if same_path(row | {"set_alpha_to_one": True})
    ]
    assert len(chosen) == 109
    for i, row in chosen:
        model, schedule, spec = setting(row)
        *_, last = sample(model, schedule, spec, DIFFUSERS.x_T)
        np.testing.assert_array_equal(last.x, last.x0_hat)
        difference = np.abs(DIFFUSERS.images(last.x) - DIFFUSERS.arrays["final_f64"][i]).max()
        assert difference > 100 * FLOAT32_COEFFICIENTS, row


def test_zero_snr_with_noise_prediction_is_refused_where_diffusers_gives_nan() -> None:
    chosen = list(rows(finite=False, prediction_type="epsilon"))
    assert len(chosen) == 84
    for i, row in chosen:
        assert np.isnan(DIFFUSERS.arrays["final_f64"][i]).any()
        _, schedule, spec = setting(row)
        with pytest.raises(ValueError, match="alpha_bar is 0 at timestep 999"):
            sample(never_called, schedule, spec, DIFFUSERS.x_T, never_called)


def never_called(*_: Any) -> Tensor:
    raise AssertionError("the setting must be refused before the model is asked")


def test_eta_one_stays_finite_where_diffusers_rounds_a_variance_below_zero() -> None:
    chosen = [row for _, row in rows(finite=False) if row["prediction_type"] != "epsilon"]
    assert len(chosen) == 16
    assert {row["eta"] for row in chosen} == {1.0}
    for row in chosen:
        assert np.isfinite(sampled(row)).all(), row


@pytest.mark.parametrize(
    ("i", "flags"),
    [
        (0, {"dynamic_threshold": 0.995, "clip_range": 1.0}),
        (1, {"dynamic_threshold": 0.9, "clip_range": 1.5}),
        (2, {"clip": True, "clip_range": 0.8}),
    ],
    ids=DIFFUSERS.meta["extra"],
)
def test_thresholding_and_clip_range_are_those_of_diffusers(i: int, flags: dict[str, Any]) -> None:
    schedule = NoiseSchedule(DIFFUSERS.arrays["abar32"])
    spec = SamplerSpec(steps=20, eta=0.5, spacing="trailing", **flags)
    model = MixtureModel(DIFFUSERS.mixture, schedule.alpha_bar)
    *_, last = sample(model, schedule, spec, DIFFUSERS.x_T, lambda i: DIFFUSERS.noise[i])
    np.testing.assert_allclose(
        DIFFUSERS.images(last.x),
        DIFFUSERS.arrays["extra/f64"][i],
        rtol=0,
        atol=FLOAT32_COEFFICIENTS,
    )


WIDENED = 1e-13  # float64 rounding of up to 30 steps; measured worst 1e-15


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize(("n_steps", "eta"), [(10, 0.0), (30, 0.5), (20, 1.0)])
def test_the_float32_table_is_all_that_parts_diffusers_from_ours(
    kind: str, n_steps: int, eta: float
) -> None:
    """Measured: 3e-8 to 3e-7 as it is, at most 1e-15 with the table in float64."""
    scheduler = DDIMScheduler(
        beta_schedule=kind, clip_sample=False, set_alpha_to_one=True, timestep_spacing="leading"
    )
    scheduler.set_timesteps(n_steps)
    schedule = NoiseSchedule(scheduler.alphas_cumprod.double().numpy())
    spec = SamplerSpec(steps=n_steps, eta=eta, spacing="leading", clip=False)
    model = MixtureModel(DIFFUSERS.mixture, schedule.alpha_bar)
    *_, last = sample(model, schedule, spec, DIFFUSERS.x_T, lambda i: DIFFUSERS.noise[i])

    def theirs() -> Tensor:
        x = DIFFUSERS.x_T
        for i, t in enumerate(scheduler.timesteps):
            eps = model(x, torch.full((len(x),), int(t)))
            x = scheduler.step(eps, t, x, eta=eta, variance_noise=DIFFUSERS.noise[i]).prev_sample
        return x

    narrow = (theirs() - last.x).abs().max().item()
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.final_alpha_cumprod = scheduler.final_alpha_cumprod.double()
    wide = (theirs() - last.x).abs().max().item()
    assert wide < WIDENED < narrow < FLOAT32_COEFFICIENTS


@pytest.mark.parametrize(
    "name", [name for name in DIFFUSERS.arrays if name.startswith("timesteps/")]
)
def test_timesteps_are_those_diffusers_listed(name: str) -> None:
    _, spacing, steps, offset = name.split("/")
    ours = timesteps(1000, int(steps[1:]), spacing, int(offset.removeprefix("offset")))  # type: ignore[arg-type]
    assert ours == DIFFUSERS.arrays[name].tolist()
