"""The toy's request: what its model learns, and what follows for a grid over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ddim_core.diffusion.specs import SamplerSpec, SchedulerSpec
from ddim_core.networks.specs import TargetSpec, TrainSpec
from flows.requests.base import BaseRequest
from flows.requests.flat import build, values
from flows.requests.grid import GridRequest
from flows.requests.models import ToyRequest

CONTENT = "c" * 64  # of a data set


def grid(**asked: Any) -> GridRequest:
    return build(GridRequest, asked)


def test_an_objective_reaches_the_training_and_the_usual_one_is_as_it_was() -> None:
    usual = build(ToyRequest, {"train_steps": 7}).training(1)
    assert type(usual) is TrainSpec
    assert build(ToyRequest, {"train_steps": 7, "objective": "epsilon"}).training(1) == usual
    flow = build(ToyRequest, {"train_steps": 7, "objective": "flow"}).training(1)
    assert flow == TargetSpec(model=usual.model, steps=7, target="flow")
    assert grid(objective="v").training.training(1) == TargetSpec(model=usual.model, target="v")
    with pytest.raises(ValueError, match=r"objective.*'score'"):
        build(ToyRequest, {"objective": "score"})


def test_a_grid_keeps_its_identity_where_the_objective_is_the_usual_one() -> None:
    identities = {grid(objective=of).identity(CONTENT) for of in ("epsilon", "v", "flow")}
    assert len(identities) == 3
    assert grid(objective="epsilon").identity(CONTENT) == grid().identity(CONTENT)
    assert grid(**values(grid(objective="flow"))) == grid(objective="flow")


def test_a_grid_over_a_flow_has_its_own_sampler_and_over_v_the_projects() -> None:
    asked = grid(objective="flow", steps=[5])
    (own,) = (cell.sampler for cell in asked.cells(asked.expected))
    assert isinstance(own, SchedulerSpec)
    assert (own.sampler, own.prediction_type, own.pipeline) == ("own", "flow_prediction", "")
    assert "grid: 1 cells" in asked.line
    assert grid(objective="flow", steps=[5], at="5,own").verdict.at == "5,own"
    v = grid(objective="v", steps=[5], etas=[0.0])
    (ddim,) = (cell.sampler for cell in v.cells(v.expected))
    assert isinstance(ddim, SamplerSpec)
    assert ddim.prediction_type == "v_prediction"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"checkpoint": "folder"}, "objective is 'flow', and the checkpoint is trained already"),
        ({"noise_schedule": "cosine"}, "noise_schedule is 'cosine', and diffusers' schedulers"),
        ({"prediction_type": "epsilon"}, "prediction_type is 'epsilon', and diffusers' sched"),
        ({"samplers": ["own", "sigma-hat"]}, "which does not draw a flow or an EDM"),
        ({"guidance": [2.0]}, "turn class_conditional on"),
    ],
)
def test_what_a_flow_cannot_be_asked_for_is_refused(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        grid(objective="flow", **asked)


@pytest.mark.parametrize("request_kind", [ToyRequest, BaseRequest])
def test_an_output_that_cannot_be_a_folder_is_refused_before_training(
    request_kind: type, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    for place, why in (
        ("file", "Not a directory"), ("file/below", "Not a directory"),
        ("nowhere", "No such file or directory"), ("n\0ull", "null byte"),
        (255 * "n" + "n", "File name too long"), (30 * f"/{200 * 'n'}", "File name too long"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=rf"output is '.*nothing can be written .*{why}"):
            build(request_kind, {"output": f"{tmp_path}/{place}"})
    build(request_kind, {"output": str(tmp_path / "new" / "folder")})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "nowhere"]
