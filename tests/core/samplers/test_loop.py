"""The loop over bare networks: an image's bits are its own, calls are counted, a flow runs back."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor

from ddim_core.diffusion.noise import ImageNoise
from ddim_core.diffusion.sampling import sample
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import SamplerSpec
from ddim_core.networks.denoisers import UNetModel, toy_unet
from ddim_core.networks.specs import ToyModelSpec
from ddim_core.samplers.catalogue import SAMPLERS
from ddim_core.samplers.loop import draw, encode_flow
from ddim_core.samplers.name import parse_sampler
from ddim_core.samplers.scheduler import scheduler_for, set_steps
from ddim_core.samplers.streams import image_streams
from tests.core.analytic import one_thread  # noqa: F401
from tests.core.samplers.exact import MIXTURE, fitted_order, network

SHAPE = (1, 8, 8)
VP = {"_class_name": "DDIMScheduler", "clip_sample": False}
SHORT = {**VP, "num_train_timesteps": 200}  # to make a KDPM2 scheduler takes T^2
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
OWN = {"vp": SHORT, "flow": FLOW, "edm": {"_class_name": "EDMEulerScheduler"}}
PAIRS = [(name, family) for name, s in SAMPLERS.items() for family in s.fits or ("own",)]
VE = {"_class_name": "ScoreSdeVeScheduler", "sigma_max": 10.0}


def ready(name: str, own: dict[str, Any], steps: int) -> Any:
    parsed = parse_sampler(name)
    scheduler = scheduler_for(parsed, own)
    set_steps(scheduler, parsed, steps)
    return scheduler


def small_network() -> Any:
    """A convolution whose answer for an image depends on the whole of it, and on t."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1),
        torch.nn.SiLU(),
        torch.nn.GroupNorm(2, 8),
        torch.nn.Conv2d(8, 1, 3, padding=1),
    )
    return lambda x, t: layers(x) * (1.0 + t.float() / 1000.0)[:, None, None, None]


@pytest.mark.parametrize(("name", "family"), PAIRS, ids=["-".join(pair) for pair in PAIRS])
def test_an_image_has_the_same_bits_at_every_place_among_other_neighbours(
    name: str, family: str
) -> None:
    own = OWN.get(family, {"_class_name": SAMPLERS[name].kind})
    model, eta = small_network(), 0.5 if SAMPLERS[name].eta else 0.0
    drawn = []
    for indices in ([7, 1, 2, 3], [4, 5, 6, 7], [7, 7, 7, 7]):
        x_T, streams = ImageNoise(0, indices, SHAPE).x_T(), image_streams(0, indices)
        with torch.inference_mode():
            drawn.append(draw(model, ready(name, own, 5), x_T, streams, eta).x)
    assert drawn[0][0].equal(drawn[1][3])
    assert drawn[0][0].equal(drawn[2][2])
    assert not drawn[0][0].equal(drawn[0][1])
    assert bool(drawn[0].isfinite().all())


def test_an_image_of_a_variance_exploding_model_is_corrected_alone() -> None:
    x = []
    for indices in ([7, 1, 2], [4, 5, 7]):
        x_T, streams = ImageNoise(0, indices, SHAPE).x_T(), image_streams(0, indices)
        with torch.inference_mode():
            done = draw(small_network(), ready("own", VE, 5), x_T, streams)
        assert done.n_evaluations == 10
        x.append(done.x)
    assert x[0][0].equal(x[1][2])
    with pytest.raises(ValueError, match="3 images have 0 streams"):
        draw(small_network(), ready("own", VE, 5), x_T)


@pytest.mark.parametrize("name", ["euler_a", "dpmpp_2m_sde", "ddpm", "ddim"])
def test_the_draws_on_the_way_are_the_streams(name: str) -> None:
    x_T, eta = ImageNoise(0, [0], SHAPE).x_T(), 1.0 if name == "ddim" else 0.0
    first, same, other = (
        draw(lambda x, t: 0.1 * x, ready(name, VP, 5), x_T, image_streams(seed, [0]), eta).x
        for seed in (0, 0, 1)
    )
    assert first.equal(same)
    assert not first.equal(other)


def test_ddim_of_diffusers_and_of_our_own_draw_the_same_images() -> None:
    model, x_T = small_network(), ImageNoise(0, [0, 1], SHAPE).x_T()
    schedule = NoiseSchedule.from_diffusers(VP)
    *_, ours = sample(model, schedule, SamplerSpec(steps=10), x_T)
    theirs = draw(model, ready("ddim", VP, 10), x_T).x
    assert torch.allclose(ours.x, theirs, atol=2e-4)  # float32 tables of alpha_bar, x up to 5


@pytest.mark.parametrize(
    ("name", "own", "steps", "asked"),
    [
        ("euler", VP, 6, 6),
        ("heun", VP, 6, 11),  # twice a step, but once in the last
        ("kdpm2", SHORT, 6, 11),
        ("pndm", VP, 6, 15),  # three Runge-Kutta steps of four calls first
        ("dpmpp_2s", VP, 6, 6),
        ("flow_heun", FLOW, 6, 11),
        ("lcm", {"_class_name": "LCMScheduler"}, 4, 4),
    ],
)
def test_network_evaluations_are_counted_as_they_happen(
    name: str, own: dict[str, Any], steps: int, asked: int
) -> None:
    calls = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        calls.append(t)
        return 0.1 * x

    scheduler = ready(name, own, steps)
    done = draw(model, scheduler, ImageNoise(0, [0, 1], SHAPE).x_T(), image_streams(0, [0, 1]))
    assert done.n_evaluations == len(calls) == asked
    assert all(t.shape == (2,) for t in calls)
    assert [float(t[0]) for t in calls] == [float(t) for t in scheduler.timesteps]


def test_fractional_timesteps_reach_the_network_unrounded() -> None:
    unet = toy_unet(ToyModelSpec(widths=(8, 8), norm_groups=4), seed=0)
    model, x = UNetModel(unet), ImageNoise(0, range(4), SHAPE).x_T()
    whole = model(x, torch.full((4,), 500))  # traced with whole numbers first
    half = model(x, torch.full((4,), 500.5))
    with torch.inference_mode():
        assert torch.allclose(half, unet(x, torch.full((4,), 500.5)).sample, atol=1e-5)
    assert float((half - whole).abs().max()) > 1e-4


def test_no_image_is_kept_but_the_latest() -> None:
    seen: list[weakref.ref[Tensor]] = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        assert sum(ref() is not None for ref in seen) <= 1
        seen.append(weakref.ref(x))
        return 0.1 * x

    draw(model, ready("euler", VP, 10), ImageNoise(0, [0], SHAPE).x_T())
    assert len(seen) == 10


def test_what_cannot_be_drawn_is_refused() -> None:
    x_T, model = ImageNoise(0, [0, 1], SHAPE).x_T(), lambda x, t: 0.1 * x
    with pytest.raises(ValueError, match="draws noise on the way; give the images' streams"):
        draw(model, ready("euler_a", VP, 3), x_T)
    with pytest.raises(ValueError, match="2 images have 1 streams"):
        draw(model, ready("euler_a", VP, 3), x_T, image_streams(0, [0]))
    for name, own in (("euler", VP), ("edm_heun", OWN["edm"]), ("own", VE)):
        scheduler = ready(name, own, 3)
        kind = type(scheduler).__name__
        with pytest.raises(ValueError, match=rf"eta is 0\.5; {kind} takes none"):
            draw(model, scheduler, x_T, image_streams(0, [0, 1]), eta=0.5)
    with pytest.raises(ValueError, match=r"2 images have 1 streams; S_churn is 4, which draws"):
        draw(model, ready("edm_heun?S_churn=4", OWN["edm"], 3), x_T, image_streams(0, [0]))
    for name, own, said in (
        ("euler", VP, "with variance_type"), ("edm_heun", OWN["edm"], "they must be the same"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            draw(lambda x, t: torch.cat([x, x], 1), ready(name, own, 3), x_T)


def test_a_flow_runs_back_to_its_noise_at_first_order() -> None:
    x_0 = MIXTURE.draw(32, seed=3).float()
    errors = {}
    for steps in (20, 40, 80):
        scheduler = ready("flow_euler", FLOW, steps)
        encoded = encode_flow(network("flow", scheduler), scheduler, x_0)
        assert encoded.n_evaluations == steps
        again = draw(network("flow", scheduler), ready("flow_euler", FLOW, steps), encoded.x).x
        errors[steps] = float((again - x_0).square().mean().sqrt())
    assert fitted_order(errors) == pytest.approx(1.0, abs=0.3)
    assert abs(float(encoded.x.std()) - 1.0) < 0.2  # 64 numbers: a standard deviation of 0.09


@pytest.mark.parametrize(
    ("name", "own"),
    [("flow_heun", FLOW), ("euler", VP), ("flow_euler?stochastic_sampling=true", FLOW)],
)
def test_only_the_euler_steps_of_a_flow_run_back(name: str, own: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="only flow_euler can"):
        encode_flow(lambda x, t: x, ready(name, own, 4), torch.zeros(1, 2))
