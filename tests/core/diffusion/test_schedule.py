"""Noise schedules, timestep selection and the linter."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from diffusers import DDIMScheduler, DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

from ddim_core.diffusion.lint import Finding, by_steps, lint
from ddim_core.diffusion.schedule import NoiseSchedule, step_pairs, timesteps
from ddim_core.diffusion.specs import NoiseSpec, SamplerSpec

LINEAR = NoiseSchedule.linear(1000, 1e-4, 0.02)


def betas_of(schedule: NoiseSchedule) -> np.ndarray[Any, np.dtype[np.float64]]:
    return 1.0 - schedule.alpha_bar / np.concatenate([[1.0], schedule.alpha_bar[:-1]])


# Schedules


def test_linear_betas_are_evenly_spaced_from_start_to_end() -> None:
    np.testing.assert_allclose(betas_of(LINEAR), np.linspace(1e-4, 0.02, 1000), rtol=1e-11)


def test_quad_betas_have_evenly_spaced_roots() -> None:
    roots = np.sqrt(betas_of(NoiseSchedule.quad(1000, 8.5e-4, 0.012)))
    np.testing.assert_allclose(roots, np.linspace(8.5e-4**0.5, 0.012**0.5, 1000), rtol=1e-11)


def test_constant_schedule_is_a_power() -> None:
    expected = 0.99 ** np.arange(1, 101)
    np.testing.assert_allclose(NoiseSchedule.constant(100, 0.01).alpha_bar, expected, rtol=1e-13)


def test_jsd_schedule_falls_linearly_to_zero() -> None:
    expected = 1.0 - np.arange(1, 51) / 50
    np.testing.assert_allclose(NoiseSchedule.jsd(50).alpha_bar, expected, rtol=0, atol=1e-15)
    assert NoiseSchedule.jsd(50).at(49) == 0.0


def test_sigmoid_betas_are_half_way_in_the_middle() -> None:
    betas = betas_of(NoiseSchedule.sigmoid(101, 1e-4, 0.02))
    np.testing.assert_allclose(betas[50], (1e-4 + 0.02) / 2, rtol=1e-11)
    np.testing.assert_allclose(betas[0], 1e-4 + 0.0199 / (1 + np.exp(6)), rtol=1e-11)


def test_cosine_follows_its_curve_until_betas_are_capped() -> None:
    schedule = NoiseSchedule.cosine(1000)
    curve = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(schedule.alpha_bar[:-1], curve[1:-1] / curve[0], rtol=1e-9)
    assert betas_of(schedule).max() == pytest.approx(0.999)


CONFIGS = [
    {"beta_schedule": name, "rescale_betas_zero_snr": zero_snr}
    for name in ("linear", "scaled_linear", "squaredcos_cap_v2")
    for zero_snr in (False, True)
] + [{"trained_betas": np.linspace(1e-3, 0.03, 1000).tolist()}]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: "-".join(map(str, config))[:60])
def test_from_diffusers_gives_the_alpha_bar_of_diffusers(config: dict[str, Any]) -> None:
    peer = DDIMScheduler(**config)
    # Diffusers multiplies 1000 float32 factors of rounding 6e-8 each; measured worst 8e-7.
    ours = NoiseSchedule.from_diffusers(peer.config).alpha_bar
    np.testing.assert_allclose(ours, peer.alphas_cumprod.double().numpy(), rtol=0, atol=2e-6)


def test_from_diffusers_knows_the_sigmoid_of_ddpm_and_other_lengths() -> None:
    peer = DDPMScheduler(num_train_timesteps=200, beta_schedule="sigmoid", beta_end=0.05)
    ours = NoiseSchedule.from_diffusers(peer.config).alpha_bar
    np.testing.assert_allclose(ours, peer.alphas_cumprod.double().numpy(), rtol=0, atol=2e-6)


def test_from_diffusers_refuses_an_unknown_schedule_by_name() -> None:
    with pytest.raises(ValueError, match=r"'laplace'.*linear, scaled_linear"):
        NoiseSchedule.from_diffusers({"beta_schedule": "laplace"})


def test_from_diffusers_refuses_trained_betas_of_another_length() -> None:
    with pytest.raises(ValueError, match="3 betas for n_train 1000"):
        NoiseSchedule.from_diffusers({"trained_betas": [0.1, 0.2, 0.3]})


def test_zero_terminal_snr_ends_at_zero_and_keeps_the_first_value() -> None:
    rescaled = LINEAR.zero_terminal_snr()
    assert rescaled.at(999) == 0.0
    assert rescaled.at(0) == pytest.approx(LINEAR.at(0), rel=1e-14)
    np.testing.assert_allclose(
        rescaled.zero_terminal_snr().alpha_bar, rescaled.alpha_bar, rtol=1e-14
    )
    with pytest.raises(ValueError, match="1 timestep"):
        NoiseSchedule.from_betas([0.5]).zero_terminal_snr()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (NoiseSpec(), LINEAR),
        (NoiseSpec(kind="quad", beta_end=0.01), NoiseSchedule.quad(1000, 1e-4, 0.01)),
        (NoiseSpec(kind="sigmoid"), NoiseSchedule.sigmoid(1000, 1e-4, 0.02)),
        (NoiseSpec(kind="constant", n_train=10), NoiseSchedule.constant(10, 0.02)),
        (NoiseSpec(kind="cosine", n_train=50), NoiseSchedule.cosine(50)),
        (NoiseSpec(kind="jsd", n_train=50), NoiseSchedule.jsd(50)),
        (NoiseSpec(kind="given", n_train=2, betas=(0.1, 0.5)), NoiseSchedule([0.9, 0.45])),  # type: ignore[arg-type]
        (NoiseSpec(zero_snr=True), LINEAR.zero_terminal_snr()),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_from_spec_builds_the_kind_it_names(spec: NoiseSpec, expected: NoiseSchedule) -> None:
    np.testing.assert_array_equal(NoiseSchedule.from_spec(spec).alpha_bar, expected.alpha_bar)


def test_from_spec_refuses_betas_without_kind_given_and_the_reverse() -> None:
    with pytest.raises(ValueError, match="'linear' and betas are given"):
        NoiseSchedule.from_spec(NoiseSpec(betas=(0.1,)))
    with pytest.raises(ValueError, match="'given' and betas are not given"):
        NoiseSchedule.from_spec(NoiseSpec(kind="given"))


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.0, 1.5, float("nan"), float("inf")])
def test_first_bad_beta_is_named_with_its_index(bad: float) -> None:
    with pytest.raises(ValueError, match=rf"beta\[2\] is {bad}"):
        NoiseSchedule.from_betas([0.1, 0.2, bad, -1.0, 0.3])


def test_beta_of_one_may_stand_at_the_end_only() -> None:
    assert NoiseSchedule.from_betas([0.1, 1.0]).at(1) == 0.0


def test_betas_lost_in_rounding_or_underflow_are_refused() -> None:
    with pytest.raises(ValueError, match=r"alpha_bar\[1\] is 0\.9"):
        NoiseSchedule.from_betas([0.1, 1e-18])
    with pytest.raises(ValueError, match=r"alpha_bar\[\d+\] is 0\.0"):
        NoiseSchedule.from_betas(np.full(1000, 0.999))
    with pytest.raises(ValueError, match="shape"):
        NoiseSchedule.from_betas([])


def test_schedule_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        LINEAR.alpha_bar[0] = 0.5
    with pytest.raises(dataclasses.FrozenInstanceError):
        LINEAR.alpha_bar = np.ones(3)  # type: ignore[misc]


def test_at_is_one_for_clean_data_and_refuses_other_timesteps() -> None:
    assert LINEAR.at(-1) == 1.0
    assert LINEAR.at(0) == pytest.approx(0.9999)
    for t in (-2, 1000):
        with pytest.raises(ValueError, match=f"timestep is {t}"):
            LINEAR.at(t)


# Timesteps


def official_sequence(n_train: int, n_steps: int, spacing: str) -> list[int]:
    """The rules in the words of the official code (runners/diffusion.py), ascending."""
    if spacing == "uniform":
        return list(range(0, n_train, n_train // n_steps))
    return [int(s) for s in np.linspace(0, np.sqrt(n_train * 0.8), n_steps) ** 2]


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int]:
    n_train = draw(st.integers(1, 2000))
    return n_train, draw(st.integers(1, n_train))


@given(sizes(), st.sampled_from(["uniform", "quad"]))
@settings(max_examples=200, deadline=None)
def test_uniform_and_quad_are_the_official_sequences_without_repeats(
    size: tuple[int, int], spacing: Any
) -> None:
    expected = sorted(set(official_sequence(*size, spacing)), reverse=True)
    assert timesteps(*size, spacing) == expected


def diffusers_timesteps(n_train: int, n_steps: int, spacing: str, offset: int = 0) -> list[int]:
    peer = DDIMScheduler(
        num_train_timesteps=n_train,
        trained_betas=[0.01] * n_train,
        timestep_spacing=spacing,
        steps_offset=offset,
    )
    peer.set_timesteps(n_steps)
    return peer.timesteps.tolist()


@given(sizes(), st.sampled_from(["leading", "linspace", "trailing"]), st.integers(0, 2))
@settings(max_examples=300, deadline=None)
def test_leading_linspace_and_trailing_are_those_of_diffusers(
    size: tuple[int, int], spacing: Any, offset: int
) -> None:
    expected = diffusers_timesteps(*size, spacing, offset)
    if max(expected) >= size[0]:
        with pytest.raises(ValueError, match=f"steps_offset {offset}"):
            timesteps(*size, spacing, offset)
    else:
        expected = expected if expected[-1] >= 0 else expected[:-1]  # see the next test
        assert timesteps(*size, spacing, offset) == expected


def test_trailing_leaves_out_the_timestep_minus_one_that_diffusers_lists() -> None:
    assert diffusers_timesteps(1000, 61, "trailing")[-2:] == [15, -1]
    assert timesteps(1000, 61, "trailing")[-1] == 15
    assert len(timesteps(1000, 61, "trailing")) == 61


@given(sizes(), st.sampled_from(["uniform", "quad", "leading", "linspace", "trailing"]))
@settings(max_examples=300, deadline=None)
def test_timesteps_descend_strictly_within_the_training_range(
    size: tuple[int, int], spacing: Any
) -> None:
    chosen = timesteps(*size, spacing)
    assert all(t > s for t, s in step_pairs(chosen))
    assert chosen[0] < size[0]
    assert all(type(t) is int for t in chosen)
    if spacing not in ("uniform", "quad"):
        assert len(chosen) == size[1]


@pytest.mark.parametrize("n_steps", [0, -3, 101])
def test_step_counts_outside_one_to_t_are_refused_with_both_numbers(n_steps: int) -> None:
    with pytest.raises(ValueError, match=f"{n_steps} steps of 100 training timesteps"):
        timesteps(100, n_steps, "leading")


def test_offsets_that_leave_the_training_range_are_refused() -> None:
    assert timesteps(100, 10, "leading", 9)[0] == 99
    with pytest.raises(ValueError, match=r"steps_offset 10 .* 10\.\.100"):
        timesteps(100, 10, "leading", 10)
    with pytest.raises(ValueError, match=r"steps_offset -1 .* -1\.\.89"):
        timesteps(100, 10, "leading", -1)


def test_unknown_spacing_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'even'"):
        timesteps(100, 10, "even")  # type: ignore[arg-type]


def test_steps_lead_from_each_timestep_to_the_next_and_end_clean() -> None:
    assert list(step_pairs([900, 500, 1])) == [(900, 500), (500, 1), (1, -1)]


# The linter


def codes(findings: list[Finding]) -> dict[str, str]:
    return {finding.code: finding.severity for finding in findings}


def message(findings: list[Finding], code: str) -> str:
    return next(finding.message for finding in findings if finding.code == code)


def test_linter_is_silent_where_nothing_is_odd() -> None:
    spec = SamplerSpec(steps=50, spacing="trailing")
    config = {"clip_sample": False, "set_alpha_to_one": True, "prediction_type": "epsilon"}
    assert lint(LINEAR, spec, config) == []


def test_linter_counts_extra_and_duplicate_steps() -> None:
    extra = lint(LINEAR, SamplerSpec(steps=30))
    assert codes(extra)["extra_steps"] == "warning"
    assert "30 steps were asked for and 31 are taken" in message(extra, "extra_steps")
    fewer = lint(LINEAR, SamplerSpec(steps=1000, spacing="quad"))
    assert "1000 steps were asked for and 688 are taken" in message(fewer, "duplicate_steps")


def test_linter_finds_zero_snr_with_noise_prediction_an_error() -> None:
    schedule = LINEAR.zero_terminal_snr()
    spec = SamplerSpec(steps=10, spacing="trailing")
    assert codes(lint(schedule, spec))["zero_snr_epsilon"] == "error"
    v = dataclasses.replace(spec, prediction_type="v_prediction")
    assert lint(schedule, v) == []
    assert "zero_snr_epsilon" not in codes(lint(schedule, SamplerSpec(steps=10)))


def test_linter_says_where_sampling_starts() -> None:
    quad = lint(LINEAR, SamplerSpec(steps=10, spacing="quad"))
    assert codes(quad) == {"late_start": "info"}
    assert "timestep 800 of 0..999" in message(quad, "late_start")
    single = lint(LINEAR, SamplerSpec(steps=1))
    assert codes(single) == {"late_start": "warning"}
    assert "alpha_bar = 1 " in message(single, "late_start")


def test_linter_finds_a_schedule_that_never_becomes_noise() -> None:
    short = NoiseSchedule.linear(100, 1e-4, 0.02)
    assert codes(lint(short, SamplerSpec(steps=10, spacing="trailing"))) == {
        "late_start": "warning"
    }


def test_linter_finds_steps_that_diffusers_takes_elsewhere() -> None:
    found = lint(LINEAR, SamplerSpec(steps=30, spacing="trailing"))
    # Listed 999, 966, 932, ...; 1000 // 30 = 33, and 966 - 33 = 933.
    assert "first from 966 to 932" in message(found, "diffusers_steps_elsewhere")
    assert "diffusers goes to 933" in message(found, "diffusers_steps_elsewhere")
    assert "diffusers_steps_elsewhere" not in codes(
        lint(LINEAR, SamplerSpec(steps=30, spacing="leading"))
    )


def test_linter_finds_the_timestep_minus_one_of_diffusers() -> None:
    found = lint(LINEAR, SamplerSpec(steps=61, spacing="trailing"))
    assert "62 timesteps for 61 steps" in message(found, "diffusers_timestep_minus_one")


def test_linter_finds_an_offset_without_effect() -> None:
    found = lint(LINEAR, SamplerSpec(steps=50, spacing="trailing", steps_offset=1))
    assert codes(found) == {"offset_ignored": "warning"}


def test_linter_compares_with_the_config_of_the_checkpoint() -> None:
    spec = SamplerSpec(steps=50, spacing="trailing")
    config = {"set_alpha_to_one": False, "prediction_type": "v_prediction"}
    found = lint(LINEAR, spec, config)
    assert codes(found) == {
        "diffusers_final_alpha": "info",
        "prediction_type_differs": "error",
        "clip_differs": "info",
    }
    assert "0.9999" in message(found, "diffusers_final_alpha")


def test_linter_says_where_the_config_of_the_checkpoint_visits_other_timesteps() -> None:
    config = {"timestep_spacing": "leading", "steps_offset": 1, "clip_sample": False}
    found = lint(LINEAR, SamplerSpec(steps=50), config)
    assert codes(found)["diffusers_timesteps_differ"] == "info"
    assert "50 timesteps 981, 961, 941, ... down to 1" in message(
        found, "diffusers_timesteps_differ"
    )
    same = SamplerSpec(steps=50, spacing="leading", steps_offset=1)
    assert "diffusers_timesteps_differ" not in codes(lint(LINEAR, same, config))
    divides = lint(LINEAR, SamplerSpec(steps=50), config | {"steps_offset": 0})
    assert "diffusers_timesteps_differ" not in codes(divides)


def test_findings_are_said_once_with_their_steps() -> None:
    one, other = Finding("a", "info", "One."), Finding("b", "info", "Other.")
    five, ten = SamplerSpec(steps=5), SamplerSpec(steps=10)
    told = by_steps([(five, [one]), (ten, [other, one]), (five, [one])])
    assert told == ["S = 5, 10: One.", "S = 10: Other."]
    guided = SamplerSpec(steps=5, guidance_scale=2.0)
    told = by_steps([(five, []), (guided, [one])])
    assert told == ["S = 5, eta = 0 (guidance 2): One."]


def test_a_finding_of_some_lines_names_them() -> None:
    config = {"clip_sample": True}
    specs = [SamplerSpec(steps=steps, eta=eta) for eta in (0.0, 1.0) for steps in (5, 10)]
    specs += [SamplerSpec(steps=steps, variance="sigma_hat", clip=True) for steps in (5, 10)]
    told = by_steps((spec, lint(LINEAR, spec, config)) for spec in specs)
    (clipping,) = [line for line in told if "clip_sample" in line]
    assert clipping.startswith("S = 5, 10, eta = 0, eta = 1: ")


def test_every_finding_is_one_sentence() -> None:
    schedule = LINEAR.zero_terminal_snr()
    specs = [
        SamplerSpec(steps=steps, spacing=spacing)
        for steps in (1, 30, 61, 1000)
        for spacing in ("uniform", "quad", "leading", "linspace", "trailing")  # type: ignore[arg-type]
    ]
    config = {
        "set_alpha_to_one": False, "prediction_type": "sample", "timestep_spacing": "linspace",
    }  # fmt: skip
    found = [finding for spec in specs for finding in lint(schedule, spec, config)]
    assert found
    for finding in found:
        assert finding.message.endswith(".")
        assert any(character.isdigit() for character in finding.message) or "config" in (
            finding.message
        )
