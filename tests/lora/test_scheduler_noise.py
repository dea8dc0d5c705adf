"""Pictures of a base are the same on every run and at every place, whatever its scheduler adds."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import diffusers.schedulers
import numpy as np
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler

from ddim_core.diffusion.noise import ImageNoise
from ddim_core.images.pixels import to_uint8
from ddim_core.text2image.pictures import open_pipeline, pictures
from ddim_core.text2image.scheduler_noise import require_own_noise, step_noise

PROMPTS, KEYS = ["a red cat", "a blue dog", "sks"], [5, 6, 7]
STEPS = 4  # the fewest of PNDM's
# What steps from noise to a picture in Stable Diffusion, with noise on the way or without.
STOCHASTIC = ("EulerAncestralDiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "DDPMScheduler",
              "LCMScheduler", "TCDScheduler", "SASolverScheduler")  # fmt: skip
DETERMINISTIC = ("DDIMScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler",
                 "KDPM2DiscreteScheduler", "LMSDiscreteScheduler", "PNDMScheduler",
                 "DEISMultistepScheduler", "DPMSolverMultistepScheduler",
                 "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler")  # fmt: skip
END = {"final_sigmas_type": "sigma_min"}
SDE = [
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver", **END},
    ),
    ("DPMSolverSinglestepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
]


@pytest.fixture
def pipeline(base: Path) -> Any:
    return open_pipeline(base)


def with_scheduler(pipeline: Any, name: str, **changes: Any) -> Any:
    kind = getattr(diffusers.schedulers, name)
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **changes)
    return pipeline


def drawn(pipeline: Any, order: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    prompts, keys = [PROMPTS[i] for i in order], [KEYS[i] for i in order]
    return pictures(pipeline, prompts, keys, steps=STEPS, batch_size=3)


@pytest.mark.parametrize(
    ("name", "changes"),
    [("EulerAncestralDiscreteScheduler", {}), ("LCMScheduler", {}), ("DDPMScheduler", {}), SDE[0]],
)
def test_pictures_repeat_at_every_place_though_the_scheduler_adds_noise(
    pipeline: Any, name: str, changes: dict[str, Any]
) -> None:
    with_scheduler(pipeline, name, **changes)
    first = drawn(pipeline)
    torch.manual_seed(12345)  # what the process drew before is of no account
    assert np.array_equal(drawn(pipeline, (2, 0, 1)), first[[2, 0, 1]])
    assert np.array_equal(drawn(pipeline, (1,)), first[1:2])


def test_pictures_of_schedulers_without_noise_are_those_of_the_plain_call(pipeline: Any) -> None:
    for name in ("DDIMScheduler", "PNDMScheduler", "UniPCMultistepScheduler"):
        with_scheduler(pipeline, name)
        noise = torch.cat([ImageNoise(key, [0], (4, 8, 8)).x_T() for key in KEYS])
        with torch.no_grad():
            plain = pipeline(
                prompt=PROMPTS, height=16, width=16, latents=noise, num_inference_steps=STEPS,
                guidance_scale=2.0, output_type="pt",
            ).images  # fmt: skip
        assert np.array_equal(drawn(pipeline), to_uint8(plain * 2.0 - 1.0)), name


def test_every_scheduler_of_diffusers_keeps_to_its_pictures_or_is_refused_in_words(
    pipeline: Any,
) -> None:
    fit, words = set(), {}
    for name in dir(diffusers.schedulers):
        kind: Any = getattr(diffusers.schedulers, name)
        if not (inspect.isclass(kind) and hasattr(kind, "from_config")):
            continue
        try:
            scheduler = kind.from_config(pipeline.scheduler.config)
        except (TypeError, ValueError, ImportError):  # of another model; torchsde is not here
            continue
        try:
            require_own_noise(scheduler, STEPS)
            fit.add(name)
        except ValueError as error:
            words[name] = str(error)
    assert {*STOCHASTIC, *DETERMINISTIC} - fit == set()
    assert all(f"scheduler, {name}, " in told for name, told in words.items())
    for name, changes in SDE:
        require_own_noise(with_scheduler(pipeline, name, **changes).scheduler, STEPS)


class Deaf(EulerAncestralDiscreteScheduler):
    """Draws from the process's own stream, whatever it is given."""

    def step(self, *args: Any, generator: Any = None, **kwargs: Any) -> Any:
        return super().step(*args, **kwargs)


class Shared(EulerAncestralDiscreteScheduler):
    """Draws the whole batch from the first picture's stream."""

    def step(self, *args: Any, generator: Any = None, **kwargs: Any) -> Any:
        return super().step(*args, generator=generator[0], **kwargs)


@pytest.mark.parametrize("kind", [Deaf, Shared])
def test_a_scheduler_that_ignores_the_pictures_own_streams_is_refused(
    pipeline: Any, kind: Any
) -> None:
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
    with pytest.raises(ValueError, match=rf"{kind.__name__}, adds noise that belongs to no"):
        drawn(pipeline)


def test_keys_that_differ_above_32_bits_have_streams_of_their_own() -> None:
    one, two, again = step_noise([1, (1 << 32) + 1, 1])
    first, second, third = (torch.randn(4, generator=g) for g in (one, two, again))
    assert torch.equal(first, third)
    assert not torch.equal(first, second)
