"""Pairs that may not be trusted, or cannot work, are refused before anything is drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from ddim_core.pipelines.arguments import Setting
from ddim_core.pipelines.drawing import Stage, draw
from ddim_core.pipelines.fitting import where_it_asks
from ddim_core.pipelines.self_test import require_place_free
from ddim_core.pipelines.stage import Conductor
from ddim_core.samplers.name import parse_sampler
from tests.core.pipelines.tiny import PIPELINES, opened_of


def asked(name: str, sampler: str, **more: Any) -> Setting:
    return Setting(parse_sampler(sampler), 2, **{"guidance": PIPELINES[name].guidance, **more})


@pytest.mark.parametrize(
    ("name", "sampler"), [("sd15", "dpmpp_2m_sde"), ("dit", "dpmpp_2m_sde"), ("flux", "own")]
)
def test_pairs_that_give_each_image_its_own_noise_pass(
    name: str, sampler: str, folder: Path
) -> None:
    conditions = PIPELINES[name].conditions([0, 1])
    require_place_free(opened_of(name, folder), asked(name, sampler), conditions, 3)


class Forgetful(diffusers.EulerAncestralDiscreteScheduler):
    """Draws from the global stream, whatever it is handed."""

    def step(self, model_output: Any, timestep: Any, sample: Any, **more: Any) -> Any:
        return super().step(model_output, timestep, sample, **{**more, "generator": None})


def test_a_scheduler_that_ignores_the_streams_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = opened_of("sd15", folder)
    monkeypatch.setattr(
        "ddim_core.pipelines.drawing.scheduler_for",
        lambda name, own: Forgetful.from_config(dict(own)),
    )
    with pytest.raises(ValueError, match="euler_a draws noise that belongs to no image"):
        require_place_free(opened, asked("sd15", "euler_a"), PIPELINES["sd15"].conditions([0]), 2)


def test_an_image_that_depends_on_its_place_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = opened_of("sd15", folder)
    plain = Conductor._step

    def mixed(self: Conductor, *args: Any, **kwargs: Any) -> Any:
        made = plain(self, *args, **kwargs)
        made[0][0] += 0.01  # to the first image of a batch alone
        return made

    monkeypatch.setattr(Conductor, "_step", mixed)
    with pytest.raises(ValueError, match="other bits in another batch"):
        require_place_free(opened, asked("sd15", "own"), PIPELINES["sd15"].conditions([0]), 2)


def test_a_call_that_does_more_than_guide_is_refused_with_an_interval(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, told = opened_of("sd15", folder), PIPELINES["sd15"].conditions([0])
    part = asked("sd15", "own", interval=(0.0, 0.5))
    require_place_free(opened, part, told, 2)
    plain = Conductor._step

    def more(self: Conductor, said: Any, *args: Any, **kwargs: Any) -> Any:
        scale = 1.0 if self._inside is None else 1.01  # whatever it does besides where it guides
        return plain(self, said * scale, *args, **kwargs)

    monkeypatch.setattr(Conductor, "_step", more)
    with pytest.raises(
        ValueError, match=r"0,0.5, and a step of a StableDiffusionPipeline .*by 0.01 of"
    ):
        require_place_free(opened, part, told, 2)


def test_a_step_that_is_made_elsewhere_than_it_is_listed_is_refused_with_an_interval(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, told = opened_of("sd15", folder), PIPELINES["sd15"].conditions([0])
    monkeypatch.setattr(
        "ddim_core.pipelines.stage.asks_at", lambda scheduler: scheduler.timesteps + 1
    )
    draw(opened, asked("sd15", "own"), [0], told, 1)
    with pytest.raises(ValueError, match="from timestep 501 where its scheduler lists 502"):
        draw(opened, asked("sd15", "own", interval=(0.0, 0.5)), [0], told, 1)


def test_a_call_that_draws_one_image_at_a_time_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, conditions = opened_of("sd15", folder), PIPELINES["sd15"].conditions([0])
    plain = Stage.batch

    def alone(self: Stage, keys: Any, conditions: Any) -> torch.Tensor:
        if len(keys) > 1:
            raise ValueError("sizes must match")
        return plain(self, keys, conditions)

    monkeypatch.setattr(Stage, "batch", alone)
    with pytest.raises(ValueError, match=r"one image at a time, and not 2 \(with own: sizes"):
        require_place_free(opened, asked("sd15", "own"), conditions, 2)
    require_place_free(opened, asked("sd15", "own"), conditions, 1)


@pytest.mark.parametrize(
    ("name", "sampler", "words"),
    [
        ("flux", "flow_heun", "hands it sigmas, and this scheduler takes none"),
        ("flux", "dpmpp_2m", "shifts its sigmas by the size of the picture"),
        ("flux", "sa_solver", "does not fit the checkpoint"),
        ("lcm", "ddim", "distilled"),
        ("sd3", "euler", "flow-matching"),
    ],
)
def test_pairs_that_cannot_work_are_refused_without_the_network(
    name: str, sampler: str, words: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = opened_of(name, folder)
    with pytest.raises(ValueError, match=words):
        where_it_asks(opened, asked(name, sampler))


@pytest.mark.parametrize(
    ("name", "sampler", "words"),
    [
        ("ddpm", "euler", "starts EulerDiscreteScheduler from noise of another size"),
        ("dit", "euler", "starts EulerDiscreteScheduler from noise of another size"),
        ("ldm", "euler_a", "from noise of another size than it asks for"),
    ],
)
def test_a_pipeline_that_would_draw_garbage_with_a_sampler_is_refused(
    name: str, sampler: str, words: str, folder: Path
) -> None:
    with pytest.raises(ValueError, match=words):
        draw(opened_of(name, folder), asked(name, sampler), [0], PIPELINES[name].conditions([0]), 2)


def test_where_the_network_is_asked_is_what_the_pipeline_does(folder: Path) -> None:
    listed = where_it_asks(opened_of("flux", folder), asked("flux", "flow_euler?sigmas=[1.0,0.25]"))
    assert listed.sigmas == pytest.approx((1.0, 0.25, 0.0))
    own = where_it_asks(opened_of("sd15", folder), asked("sd15", "own"))
    assert own.timesteps == (501.0, 1.0)
    heun = where_it_asks(opened_of("sd3", folder), asked("sd3", "flow_heun"))
    assert len(heun.timesteps) == 3


CLASSES = torch.tensor([1000])


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("sd15", lambda told: {}, "draws for prompts, encoded; give prompt_embeds, negative"),
        ("dit", lambda told: {}, "draws for classes; give class_labels"),
        ("dit", lambda told: {"class_labels": CLASSES}, "a class is 1000; .* knows classes 0 to"),
        ("ddpm", lambda told: {"class_labels": CLASSES}, "takes no prompts and no classes"),
        ("sd15", lambda told: {"prompt_embed": told["prompt_embeds"]}, "did you mean prompt_em"),
        (
            "sd15",
            lambda told: {"prompt_embeds": told["prompt_embeds"]},
            "guidance is 5.0, and what it leads away from is missing; give negative_prompt_embeds",
        ),
        (
            "sd15",
            lambda told: told | {"prompt_embeds": told["prompt_embeds"].repeat(2, 1, 1)},
            "prompt_embeds has 2 rows for 3 images",
        ),
    ],
)
def test_conditions_that_the_call_does_not_take_are_refused(
    name: str, change: Any, words: str, folder: Path
) -> None:
    conditions = change(PIPELINES[name].conditions([0]))
    with pytest.raises(ValueError, match=words):
        draw(opened_of(name, folder), asked(name, "own"), [0, 1, 2], conditions, 2)


def test_settings_that_the_pair_does_not_have_are_refused(folder: Path) -> None:
    opened = opened_of("ddpm", folder)
    with pytest.raises(ValueError, match=r"guidance is 3.0; DDPMPipeline takes none"):
        draw(opened, asked("ddpm", "own", guidance=3.0), [0], {}, 1)
    with pytest.raises(ValueError, match=r"is 0,0.5, and a DDPMPipeline takes no guidance, so"):
        where_it_asks(opened, asked("ddpm", "own", interval=(0.0, 0.5)))
    with pytest.raises(ValueError, match=r"is 0,0.5, and a FluxPipeline tells its network the gui"):
        where_it_asks(opened_of("flux", folder), asked("flux", "own", interval=(0.0, 0.5)))
    with pytest.raises(ValueError, match=r"eta is 0.5; dpmpp_2m has none"):
        draw(opened, asked("ddpm", "dpmpp_2m", eta=0.5), [0], {}, 1)
    with pytest.raises(ValueError, match=r"eta is 1.5; it must lie in"):
        asked("ddpm", "own", eta=1.5)
    with pytest.raises(ValueError, match=r"steps is 2; lcm.timesteps=.999. lists 1"):
        asked("lcm", "lcm?timesteps=[999]")
