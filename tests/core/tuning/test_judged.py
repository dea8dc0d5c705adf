"""What speaks against a tuned list is told: few images, a short long run, a small budget."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ddim_core.samplers.name import parse_sampler
from ddim_core.tuning.judged import judge, warnings
from ddim_core.tuning.runs import TUNING, LoopRuns, distances
from ddim_core.tuning.search import Found
from ddim_core.tuning.target import long_run
from tests.core.analytic import one_thread  # noqa: F401
from tests.core.samplers.exact import linear, network
from tests.core.tuning.exact import CHUNK, Exact

FOUND = Found((9.0,), 0.1, (8.0,), 0.3, 0.2, 10, 40.0, True)
SOUND: dict[str, Any] = {
    "found": FOUND, "moved": 0.01, "long_steps": 64, "n_images": 128, "n_budget": 4000,
    "ignores_time": False,
}  # fmt: skip
RANDOM = np.random.default_rng(0)
NEAR, FAR = RANDOM.normal(0.1, 0.02, 128), RANDOM.normal(0.3, 0.05, 128)


def test_nothing_speaks_against_a_sound_list() -> None:
    judged = judge(NEAR, NEAR[::-1], FAR)
    assert warnings(judged, **SOUND) == []
    assert judged.gain.low > 0.15
    assert judged.gap.low < 0.0 < judged.gap.high


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"n_images": 4}, "tuned on 4 images, which are few"),
        ({"moved": 0.05}, "The long run is too short for it: the last doubling, to 64 steps,"),
        ({"found": replace(FOUND, finished=False)}, "The budget of 4000 network calls an image"),
        ({"ignores_time": True}, "answers alike at all timesteps"),
    ],
)
def test_each_weakness_is_told(changed: dict[str, Any], told: str) -> None:
    (said,) = warnings(judge(NEAR, NEAR[::-1], FAR), **(SOUND | changed))
    assert told in said


def test_a_list_that_is_fitted_to_its_images_is_told() -> None:
    said = warnings(judge(NEAR, NEAR * 1.5, FAR), **SOUND)
    assert len(said) == 1
    assert "On fresh images it is 50% farther" in said[0]
    said = warnings(judge(NEAR, FAR, FAR), **SOUND)
    assert any("not proven nearer" in sentence for sentence in said)
    said = warnings(judge(NEAR, FAR, FAR), **(SOUND | {"moved": 0.05}), n_features=64)
    assert [("worse by FID" in s, "not proven better by FID" in s) for s in said] == [
        (True, False), (False, True),
    ]  # fmt: skip
    (few,) = warnings(judge(NEAR, NEAR[::-1], FAR), **SOUND, n_features=65)
    assert "tuned on 128 images, which are few for an FID in 65 features" in few
    assert "give at least 130, or take --distance features" in few


def test_a_network_that_does_not_heed_its_timestep_is_found() -> None:
    heeds = Exact("vp", linear(), CHUNK)
    assert not heeds.runs.ignores_time()
    deaf = LoopRuns(lambda _: lambda x, t: 0.1 * x, linear(), (2,), 0, TUNING, 8, 8)
    deaf.ends(parse_sampler("dpmpp_2m"), 4, 0)
    assert deaf.ignores_time()


def test_the_long_run_is_doubled_until_it_moves_little() -> None:
    own = linear()
    from ddim_core.samplers.scheduler import scheduler_for

    ask = network("vp", scheduler_for(parse_sampler("own"), own))
    runs = LoopRuns(lambda _: ask, own, (2,), 0, TUNING, CHUNK, CHUNK)
    sampler = parse_sampler("dpmpp_2m?timestep_spacing=linspace")
    easy, hard = (long_run(runs, 1, sampler, lambda _, by=by: by) for by in (10.0, 0.01))
    assert easy.settled
    assert easy.steps < hard.steps
    assert hard.moved <= 0.05 * 0.01 or not hard.settled
    short = long_run(runs, 1, sampler, lambda _: 1e-9, 4)
    assert short.steps == 4
    assert not short.settled
    assert short.moved > hard.moved


def test_a_model_of_few_timesteps_has_the_longest_run_that_it_can_have() -> None:
    own = linear(50)
    runs = LoopRuns(lambda _: lambda x, t: 0.1 * x, own, (2,), 0, TUNING, 8, 8)
    sampler = parse_sampler("dpmpp_2m?timestep_spacing=linspace")
    assert long_run(runs, 1, sampler, lambda _: 1e-9).steps == 32
    with pytest.raises(ValueError, match="long_steps is 60: "):
        long_run(runs, 1, sampler, lambda _: 1.0, 60)


def test_distance_is_the_root_mean_square_image_by_image() -> None:
    a = torch.zeros(2, 1, 2, 2)
    b = a.clone()
    b[1] = 3.0
    assert distances(a, b).tolist() == [0.0, 3.0]
