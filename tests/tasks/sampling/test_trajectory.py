"""How images came about: the x0 kept is what the network said, and leads to the cell's images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ddim_core.checkpoints.checkpoint import save_pipeline
from ddim_core.diffusion.noise import ImageNoise
from ddim_core.diffusion.sampling import sample
from ddim_core.diffusion.specs import Execution, GridCell, NoiseSpec, SamplerSpec, SchedulerSpec
from ddim_core.images.pixels import to_uint8
from ddim_core.networks.denoisers import UNetModel, network_batch, toy_unet
from ddim_core.networks.specs import ToyModelSpec
from tasks.checkpoints.memory import checkpoint_in_memory
from tasks.checkpoints.scheduler import scheduler_of
from tasks.sampling.draw import task_for
from tasks.sampling.trajectory import clean_at, draw_trajectories, drawn_together, why_none
from tasks.storage import store
from tests.core.checkpoints.test_research_networks import adopted, written

N, HERE = 3, Execution()
GENERATOR = torch.Generator().manual_seed(0)
X0, NOISE = (torch.randn(2, 3, 4, 4, generator=GENERATOR, dtype=torch.float64) for _ in range(2))


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> list[store.ArtifactRef]:
    folder, made = tmp_path_factory.mktemp("trajectories"), []
    for seed in range(2):
        save_pipeline(folder / str(seed), toy_unet(ToyModelSpec(widths=(16, 16)), seed),
                      NoiseSpec(), 1)  # fmt: skip
        made.append(store.put_folder(folder / str(seed)))
    return made


@pytest.fixture(scope="module")
def toy(toys: list[store.ArtifactRef]) -> store.ArtifactRef:
    return toys[0]


def test_the_last_x0_is_the_cells_image_to_the_bit(toy: store.ArtifactRef) -> None:
    calls: dict[SamplerSpec | SchedulerSpec, int] = {
        SamplerSpec(10): 10, SamplerSpec(4, variance="sigma_hat", clip=True): 4,
        SamplerSpec(10, eta=1.0): 10, SchedulerSpec("dpmpp_2m", 4): 4, SchedulerSpec("heun", 3): 5,
    }  # fmt: skip
    cells = [GridCell(sampler, seed=5) for sampler in calls]
    assert [why_none(cell, scheduler_of(toy)) for cell in cells] == [""] * 5
    found = draw_trajectories.fn(cells, toy, N, HERE).of
    assert [one.calls for one in found] == list(calls.values())
    for cell, one in zip(cells, found, strict=True):
        arrays = store.get_arrays(one)
        assert arrays["x0"].shape == (N, min(8, one.calls), 8, 8, 1)
        assert (np.diff(arrays["t"]) <= 0).all()
        # Whatever lies before, the last step of each of these lands on the x0 it predicts; the
        # images are drawn in a batch of another size, cell by cell.
        images = store.get_arrays(task_for(cell).fn(cell, toy, 0, 2 * N, HERE))["images"][:N]
        np.testing.assert_array_equal(arrays["x0"][:, -1], images)
        assert (arrays["x0"][:, 0] != images).any()


def test_cells_share_the_calls_of_the_network_and_its_errors(
    toy: store.ArtifactRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, rows = UNetModel.whole, list[int]()

    def counted(self: UNetModel, x_t: torch.Tensor, *more: torch.Tensor) -> torch.Tensor:
        rows.append(len(x_t))
        return plain(self, x_t, *more)

    monkeypatch.setattr(UNetModel, "whole", counted)
    cells = [GridCell(SamplerSpec(steps, eta=1.0)) for steps in (2, 4, 5)]
    draw_trajectories.fn(cells, toy, N, HERE)
    assert rows == [3 * N, 3 * N, 2 * N, 2 * N, N]
    assert drawn_together(8, 2, "cpu") == network_batch((8, 8)) // 2 > 1
    assert (drawn_together(512, 4, "cpu"), drawn_together(8, 4, "cpu:0")) == (1, 1)
    monkeypatch.setattr(UNetModel, "whole", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        draw_trajectories.fn(cells, toy, N, HERE)


@pytest.mark.parametrize("sampler", [SamplerSpec(4), SchedulerSpec("dpmpp_2m", 4)])
def test_they_are_guided_as_the_cell_is(
    toys: list[store.ArtifactRef], sampler: SamplerSpec | SchedulerSpec
) -> None:
    toy, guide = toys
    cell = GridCell(replace(sampler, guidance_scale=2.0, guide=guide.artifact), seed=5)
    x0 = store.get_arrays(draw_trajectories.fn([cell], toy, N, HERE).of[0])["x0"]
    images = store.get_arrays(task_for(cell).fn(cell, toy, 0, 2 * N, HERE))["images"][:N]
    np.testing.assert_array_equal(x0[:, -1], images)
    plain = draw_trajectories.fn([GridCell(sampler, seed=5)], toy, N, HERE).of[0]
    assert (store.get_arrays(plain)["x0"] != x0).any()


def test_a_network_that_is_told_its_last_guess_is_told_it_here(tmp_path: Path) -> None:
    told = store.put_folder(adopted(written(tmp_path / "run", "lucidrains_x0")))
    sampler = SamplerSpec(4, prediction_type="sample", clip=True)
    cell = GridCell(sampler, seed=5)
    x0 = store.get_arrays(draw_trajectories.fn([cell], told, N, HERE).of[0])["x0"]
    images = store.get_arrays(task_for(cell).fn(cell, told, 0, N, HERE))["images"]
    np.testing.assert_array_equal(x0[:, -1], images)
    alone, noise = checkpoint_in_memory(told), ImageNoise(5, range(N), (3, 8, 8))
    with torch.inference_mode():
        *_, last = sample(alone.model, alone.require_schedule(), sampler, noise.x_T(), noise)
    assert (to_uint8(last.x) != images).any()


def test_a_networks_answer_is_read_as_the_x0_that_was_noised() -> None:
    betas = np.linspace(1e-4, 0.02, 1000)
    alpha_bar = float(np.cumprod(1 - betas)[500])
    x_t = alpha_bar**0.5 * X0 + (1 - alpha_bar) ** 0.5 * NOISE
    v = alpha_bar**0.5 * NOISE - (1 - alpha_bar) ** 0.5 * X0
    linear = {"_class_name": "DDIMScheduler", "beta_start": 1e-4, "beta_end": 0.02}
    sigma, data = 1.7, 0.5
    c_in = (sigma**2 + data**2) ** -0.5
    noisy = X0 + sigma * NOISE
    edm = (X0 - data**2 * c_in**2 * noisy) / (sigma * data * c_in)  # c_skip x + c_out F = x0
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
    own = {"_class_name": "EDMEulerScheduler", "sigma_data": data}
    for told, said, x, t in (
        (linear | {"prediction_type": "epsilon"}, NOISE, x_t, 500.0),
        (linear | {"prediction_type": "v_prediction"}, v, x_t, 500.0),
        (linear | {"prediction_type": "sample"}, X0, x_t, 500.0),
        (flow, NOISE - X0, 0.7 * X0 + 0.3 * NOISE, 300.0),
        (own, edm, c_in * noisy, np.log(sigma) / 4),
    ):
        found = clean_at(told)(said, x, t)
        torch.testing.assert_close(found, X0, rtol=0, atol=1e-9)  # float64, some products


def test_cells_without_x0_say_why(toy: store.ArtifactRef, tmp_path: Path) -> None:
    by_pipeline = GridCell(SchedulerSpec("own", 3, pipeline="StableDiffusionPipeline"))
    assert "StableDiffusionPipeline's own call draws it" in why_none(by_pipeline, None)
