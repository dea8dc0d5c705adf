"""No step of a sampler waits for a card: on torch's meta device, where a tensor has no values, all
that would ask the card for one fails."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ddim_core.diffusion.guidance import guided
from ddim_core.diffusion.sampling import sample
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import SamplerSpec
from ddim_core.networks.denoisers import UNetModel, toy_unet
from ddim_core.networks.specs import ToyModelSpec
from ddim_core.samplers.catalogue import SAMPLERS
from ddim_core.samplers.loop import draw
from ddim_core.samplers.name import parse_sampler
from ddim_core.samplers.scheduler import scheduler_for, set_steps
from ddim_core.samplers.streams import image_streams

STEPS, SHAPE = 4, (2, 1, 8, 8)
OWNS: list[dict[str, Any]] = [
    {"_class_name": "DDPMScheduler"},
    {"_class_name": "FlowMatchEulerDiscreteScheduler"},
    {"_class_name": "EDMEulerScheduler"},
]


def labelled(network: Any, inside: Any = None) -> Any:
    labels = torch.zeros(SHAPE[0], dtype=torch.int64, device="meta")
    return guided(network, labels, 3, 2.0, inside)


def answer(x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
    return x * t.to(x.device, non_blocking=True).view(-1, 1, 1, 1)


@pytest.mark.parametrize("own", OWNS, ids=lambda own: str(own["_class_name"]))
@pytest.mark.parametrize("sampler", ["own", *SAMPLERS])
def test_no_scheduler_waits_between_its_steps(own: dict[str, Any], sampler: str) -> None:
    name = parse_sampler(sampler)
    try:
        scheduler = scheduler_for(name, own)
        set_steps(scheduler, name, STEPS)
    except ValueError:
        pytest.skip("no sampler for it")
    streams = image_streams(0, range(SHAPE[0]))
    model = labelled(answer, inside=lambda t: t > 300.0)  # which looks at the timestep
    with torch.inference_mode():
        drawn = draw(model, scheduler, torch.empty(SHAPE, device="meta"), streams)
    assert drawn.x.shape == SHAPE
    assert drawn.n_evaluations >= STEPS


@pytest.mark.parametrize("quantile", [None, 0.995])
def test_our_own_loop_and_a_network_wait_for_nothing(quantile: float | None) -> None:
    toy = ToyModelSpec(widths=(8, 8), norm_groups=4, n_classes=3)
    network = UNetModel(toy_unet(toy, 0).to("meta"), on_card=True)
    spec = SamplerSpec(STEPS, eta=1.0, dynamic_threshold=quantile)
    schedule = NoiseSchedule.linear(1000, 1e-4, 0.02)

    def noise(i: int) -> Tensor:
        return torch.empty(SHAPE, device="meta")

    with torch.inference_mode():
        *_, last = sample(labelled(network), schedule, spec, noise(0), noise)
    assert last.s == -1


def test_what_waits_is_found_out() -> None:
    """The tests above can fail: with timesteps on the card DDPM looks its own up there."""
    scheduler = scheduler_for(parse_sampler("ddpm"), OWNS[0])
    set_steps(scheduler, parse_sampler("ddpm"), STEPS)
    scheduler.timesteps = scheduler.timesteps.to("meta")
    asked = labelled(answer), scheduler, torch.empty(SHAPE, device="meta"), image_streams(0, [0, 1])
    with torch.inference_mode(), pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        draw(*asked)
