"""What files tell early is what the opened checkpoint tells late: nothing else is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from diffusers import FlowMatchEulerDiscreteScheduler

from ddim_core.checkpoints.convert import source_digest
from flows.early.grids import refuse_samplers, side_of
from flows.grid.inputs import sampled
from flows.requests.flat import build
from flows.requests.grid import GridRequest
from tasks.cells.settings import require_fit
from tasks.checkpoints.convert import converted, files_of
from tasks.checkpoints.open import CheckpointRecord, open_checkpoint
from tasks.checkpoints.pipelines import is_pipeline, pipeline_digest, store_pipeline
from tasks.checkpoints.scheduler import scheduler_of
from tasks.sampling.trajectory import require_x0
from tests.core.pipelines.tiny import PIPELINES

ASKED: list[dict[str, Any]] = [
    {}, {"samplers": ["own"]}, {"samplers": ["ddim"], "steps": [1001]}, {"samplers": ["unipc"]},
    {"samplers": ["flow_euler"]}, {"samplers": ["edm_heun"]}, {"trajectories": 2},
    {"samplers": ["euler"], "trajectories": 2}, {"samplers": ["dpmpp_2m"], "steps": [1001]},
    {"guidance": [3.0], "guidance_interval": [0.0, 0.5]},
]  # fmt: skip


@pytest.mark.parametrize("name", ["ddpm", "flow", "lcm", "sd3", "dit"])
def test_what_is_refused_early_is_what_the_opened_checkpoint_refuses(
    name: str, tmp_path: Path
) -> None:
    made = PIPELINES["ddpm" if name == "flow" else name].make()
    if name == "flow":
        made.register_modules(scheduler=FlowMatchEulerDiscreteScheduler())
    made.save_pretrained(tmp_path / name)
    record = opened(tmp_path / name)
    assert side_of(tmp_path / name) == record.resolution

    def early(request: GridRequest) -> None:
        refuse_samplers(request)

    def late(request: GridRequest) -> None:
        cells = request.cells(sampled(request, record))
        require_fit(cells, record.n_train, record.ref)
        require_x0(request.report.trajectories, cells, scheduler_of(record.ref))

    usual = {"checkpoint": str(tmp_path / name), "etas": [0.0], "sigma_hat": False, "steps": [3]}
    requests = [build(GridRequest, {**usual, **asked}) for asked in ASKED]
    told = [said_by(late, request) for request in requests]
    assert [said_by(early, request) for request in requests] == told
    assert 0 < sum(map(bool, told)) < len(told)


def opened(folder: Path) -> CheckpointRecord:
    if is_pipeline(folder):
        ref = store_pipeline.fn(pipeline_digest(folder), location=str(folder))
    else:
        ref = converted(source_digest(files_of(str(folder))), "ema", str(folder))
    return open_checkpoint.fn(ref, folder.name)


def said_by(look: Any, request: GridRequest) -> str:
    try:
        look(request)
    except ValueError as error:
        return str(error)
    return ""
