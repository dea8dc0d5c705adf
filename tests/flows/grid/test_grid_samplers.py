"""Cells of diffusers' schedulers: over a bare U-Net, and by a pipeline's own call."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from ddim_core.safe_files.loras.files import epoch_files, lora_bytes
from flows.cli.app import app
from tests.core.pipelines.tiny import PIPELINES
from tests.flows.grids import GridRun, lasting

RunGrid = Callable[..., GridRun]
pytestmark = pytest.mark.timeout(300)


def images_of(cell: str) -> np.ndarray:
    from tasks.storage import store
    from tasks.storage.cell_rows import read_rows

    (row,) = read_rows([cell]).rows
    shards = [store.ArtifactRef(artifact, "shard") for artifact in row.image_shards]
    return np.concatenate([store.get_arrays(shard)["images"] for shard in shards])


def by_sampler(run: GridRun) -> dict[str, dict[str, Any]]:
    assert run.state == "Completed", run.message
    return {row["sampler"]: row for row in run.rows}


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A tiny SDXL as a folder, and a file of what eight prompts would be encoded to."""
    folder = tmp_path_factory.mktemp("pipelines")
    PIPELINES["sdxl"].make().save_pretrained(folder / "sdxl")
    save_file(PIPELINES["sdxl"].conditions(range(8)), folder / "prompts.safetensors")
    return str(folder / "sdxl"), str(folder / "prompts.safetensors")


def test_a_bare_u_net_takes_every_sampler_with_the_noise_of_its_other_cells(
    run_grid: RunGrid, toy: str
) -> None:
    from diffusers import DPMSolverMultistepScheduler

    from ddim_core.checkpoints.checkpoint import load_checkpoint, scheduler_config
    from ddim_core.diffusion.noise import ImageNoise
    from ddim_core.images.pixels import to_uint8
    from ddim_core.samplers.loop import draw
    from ddim_core.samplers.name import parse_sampler
    from ddim_core.samplers.scheduler import scheduler_for, set_steps
    from ddim_core.samplers.streams import image_streams

    asked: dict[str, Any] = {
        "samplers": ["own", "ddim", "heun", "dpmpp_2m/karras", "euler_a"], "etas": [0.0],
        "steps": [3], "seed": 31, "n_images": 14,
    }  # fmt: skip
    run = run_grid(**asked)
    rows = by_sampler(run)
    assert set(rows) == {"own", "ddim", "heun", "dpmpp_2m/karras", "euler_a"}
    assert {name: row["nfe"] for name, row in rows.items()}["heun"] == 5  # once in the last step
    assert rows["ddim"]["scheduler_config"] == ""
    assert '"use_karras_sigmas": true' in rows["dpmpp_2m/karras"]["scheduler_config"]

    loaded = load_checkpoint(Path(toy))
    scheduler = DPMSolverMultistepScheduler.from_config(
        {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "use_karras_sigmas": True,
         "num_train_timesteps": 1000, "timestep_spacing": "leading"}
    )  # fmt: skip
    scheduler.set_timesteps(3)
    told = json.loads(rows["dpmpp_2m/karras"]["scheduler_config"])
    by_row = DPMSolverMultistepScheduler.from_config(told)
    by_row.set_timesteps(3)
    assert torch.equal(by_row.sigmas, scheduler.sigmas)
    x = ImageNoise(31, range(14), (1, 8, 8)).x_T()
    with torch.inference_mode():
        for t in scheduler.timesteps:
            x = scheduler.step(loaded.model(x, t.expand(14)), t, x).prev_sample
    shown = images_of(rows["dpmpp_2m/karras"]["cell_digest"])
    assert np.abs(shown.astype(int) - to_uint8(x)).max() <= 1

    # A sampler that draws noise takes each image's own stream, in whatever shard it lies.
    name = parse_sampler("euler_a")
    ancestral = scheduler_for(name, scheduler_config(Path(toy)))
    set_steps(ancestral, name, 3)
    with torch.inference_mode():
        x_T = ImageNoise(31, range(14), (1, 8, 8)).x_T()
        x = draw(loaded.model, ancestral, x_T, image_streams(31, range(14))).x
    shown = images_of(rows["euler_a"]["cell_digest"])
    assert np.abs(shown.astype(int) - to_uint8(x)).max() <= 1

    again = run_grid(**asked)
    assert again.result is not None
    assert again.result.images_drawn == 0
    assert again.rows == run.rows
    more = run_grid(**asked | {"n_images": 24})
    assert more.result is not None
    assert more.result.images_drawn == 5 * 10
    longer = images_of(by_sampler(more)["euler_a"]["cell_digest"])
    np.testing.assert_array_equal(longer[:14], images_of(rows["euler_a"]["cell_digest"]))


def test_a_pipeline_is_drawn_by_its_own_call_and_extended(
    run_grid: RunGrid, sdxl: tuple[str, str], pictures: str
) -> None:
    folder, prompts = sdxl
    asked: dict[str, Any] = {
        "checkpoint": folder, "prompts": prompts, "dataset": pictures, "steps": [2], "seed": 32,
        "samplers": ["own", "dpmpp_2m_sde", "ddim"], "etas": [0.0, 1.0], "guidance": [3.0],
    }  # fmt: skip
    run = run_grid(**asked, n_images=6, shard_size=6)
    assert run.state == "Completed", run.message
    assert sorted((row["sampler"], row["eta"]) for row in run.rows) == [
        ("ddim", 0.0), ("ddim", 1.0), ("dpmpp_2m_sde", 0.0), ("own", 0.0),
    ]  # fmt: skip
    assert {row["pipeline"] for row in run.rows} == {"StableDiffusionXLPipeline"}
    assert {row["nfe"] for row in run.rows} == {4}  # guidance asks twice
    more = run_grid(**asked, n_images=9, shard_size=9)
    assert more.result is not None
    assert more.result.images_drawn == 4 * 3
    first, longer = (
        {(r["sampler"], r["eta"]): images_of(r["cell_digest"]) for r in each.rows}
        for each in (run, more)
    )
    for line, images in first.items():
        np.testing.assert_array_equal(longer[line][:6], images)
    assert lasting(run_grid(**asked, n_images=9, shard_size=9).rows) == lasting(more.rows)
    page = Path(more.result.report).read_text()
    assert "</span> over network calls</h2>" in page
    side = more.rows[0]["resolution"]
    same = run_grid(**asked, n_images=9, shard_size=9, resolution=side)
    assert same.result is not None
    assert (same.result.cells, same.result.images_drawn) == (more.result.cells, 0)
    larger = run_grid(
        **asked | {"samplers": ["own"], "etas": [0.0], "n_images": 2}, resolution=side + 8
    )
    (row,) = larger.rows
    assert row["resolution"] == json.loads(row["protocol"])["sampler"]["resolution"] == side + 8
    assert images_of(row["cell_digest"]).shape == (2, side + 8, side + 8, 3)


@pytest.fixture(scope="module")
def flow_toy(server: str) -> str:
    """The folder of a flow after 20 steps, as `ddim train --objective flow` makes it."""
    from flows.train_toy import train_toy

    return train_toy(dataset="digits", train_steps=20, objective="flow", seed=33).checkpoint


def test_a_toy_of_a_flow_is_trained_in_a_grid_and_drawn_by_five_samplers(
    run_grid: RunGrid, flow_toy: str
) -> None:
    from diffusers import FlowMatchHeunDiscreteScheduler

    from ddim_core.checkpoints.checkpoint import load_checkpoint
    from ddim_core.diffusion.noise import ImageNoise
    from ddim_core.images.pixels import to_uint8

    asked: dict[str, Any] = {
        "steps": [3], "seed": 33, "n_images": 8, "shard_size": 8, "etas": [0.0],
    }  # fmt: skip
    samplers = ["own", "flow_euler", "flow_heun", "dpmpp_2m", "unipc"]
    trained = {"checkpoint": "", "objective": "flow", "train_steps": 20}
    run = run_grid(**asked, **trained, samplers=samplers)
    assert ("train-toy", "Cached") in run.tasks  # what `ddim train` made is taken
    rows = by_sampler(run)
    calls = {name: row["nfe"] for name, row in rows.items()}
    assert calls == {"own": 3, "flow_euler": 3, "flow_heun": 5, "dpmpp_2m": 3, "unipc": 3}
    assert {row["prediction_type"] for row in rows.values()} == {"flow_prediction"}
    assert {row["checkpoint"] for row in rows.values()} == {"toy-digits-flow"}
    shown = {name: images_of(row["cell_digest"]) for name, row in rows.items()}
    np.testing.assert_array_equal(shown["own"], shown["flow_euler"])

    model, scheduler = load_checkpoint(Path(flow_toy)).model, FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(3)
    x = ImageNoise(33, range(8), (1, 8, 8)).x_T()  # the noise that other cells of the seed have
    with torch.inference_mode():
        for t in scheduler.timesteps:
            x = scheduler.step(model(x, t.expand(8)), t, x).prev_sample
    assert np.abs(shown["flow_heun"].astype(int) - to_uint8(x)).max() <= 1

    as_checkpoint = run_grid(**asked, checkpoint=flow_toy)  # which draws `own` where none is named
    assert as_checkpoint.result is not None
    assert as_checkpoint.result.images_drawn == 0
    assert as_checkpoint.rows[0]["cell_digest"] == rows["own"]["cell_digest"]


def test_a_trained_flow_is_run_back_to_its_noise_the_better_the_more_steps(flow_toy: str) -> None:
    from ddim_core.checkpoints.checkpoint import load_checkpoint, scheduler_config
    from ddim_core.images.load import load_images
    from ddim_core.images.pixels import from_uint8
    from ddim_core.samplers.loop import draw, encode_flow
    from ddim_core.samplers.name import parse_sampler
    from ddim_core.samplers.scheduler import scheduler_for, set_steps

    model, own = load_checkpoint(Path(flow_toy)).model, scheduler_config(Path(flow_toy))
    x_0 = from_uint8(load_images("digits", "test").images[:8])
    errors = []
    for steps in (4, 16):
        name, scheduler = parse_sampler("flow_euler"), scheduler_for(parse_sampler("own"), own)
        set_steps(scheduler, name, steps)
        with torch.inference_mode():
            noise = encode_flow(model, scheduler, x_0).x
            set_steps(scheduler, name, steps)
            errors.append(float((draw(model, scheduler, noise).x - x_0).square().mean()))
    assert errors[1] < errors[0] / 4  # of order 1: a quarter of the error, squared


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"samplers": ["ddim"]}, "ddim does not fit the checkpoint.*a flow-matching model"),
        ({"samplers": ["heun"]}, "heun does not fit the checkpoint.*take own, dpmpp_2m"),
        ({"noise_schedule": "cosine"}, "noise_schedule is 'cosine', and diffusers' schedulers"),
        ({"clip": True}, "clip is on"),
    ],
)
def test_what_does_not_fit_a_flow_is_refused(
    flow_toy: str, change: dict[str, Any], told: str
) -> None:
    from flows.fid_grid import fid_grid

    with pytest.raises(ValueError, match=told):
        fid_grid(checkpoint=flow_toy, steps=[2], features="pixels", n_images=4, **change)


def test_the_papers_experiments_refuse_a_flow_in_words(flow_toy: str) -> None:
    from flows.paper import paper

    with pytest.raises(ValueError, match="of a flow or an EDM and knows no schedule of betas"):
        paper(checkpoint=flow_toy, steps=[2], features="pixels", n_images=4)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"samplers": ["flow_heun"]}, "flow_heun does not fit the checkpoint"),
        ({"samplers": ["dpmpp-2m"]}, "did you mean dpmpp_2m"),
        ({"samplers": ["lcm"]}, "lcm does not fit the checkpoint"),
        ({"samplers": ["sigma-hat"]}, "sigma-hat is of the project's own sampler"),
        ({"prompts": ""}, "no text encoders here; .* as a .safetensors file of prompt_embeds"),
        ({"samplers": ["euler?order=3"]}, "euler has no key 'order'"),
        ({"samplers": ["unipc?thresholding=no"]}, "thresholding is no; it must be true or false"),
        ({"guidance": [0.5]}, "guidance is 0.5; the call of a StableDiffusionXLPipeline does none"),
        ({"samplers": ["unipc"], "etas": [0.5]}, "etas are given, and none of unipc has one"),
        ({"samplers": ["unipc"], "etas": [7.0]}, "eta is 7.0; it must lie in"),
        ({"samplers": ["tcd"], "etas": []}, "etas is empty"),
        ({"lora_scales": [0.5]}, "lora_scales are given and no lora"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_words_before_anything_is(
    server: str, sdxl: tuple[str, str], change: dict[str, Any], told: str
) -> None:
    from flows.fid_grid import fid_grid

    folder, prompts = sdxl
    asked = {"checkpoint": folder, "prompts": prompts, "dataset": "emoji", "steps": [2],
             "features": "pixels", "n_images": 4}  # fmt: skip
    with pytest.raises(ValueError, match=told):
        fid_grid(**{**asked, **change})


@pytest.mark.usefixtures("shipped_by_forks")
def test_a_lora_lies_over_a_pipeline_in_either_layout_and_its_scales_are_an_axis(
    run_grid: RunGrid, pictures: str, tmp_path: Path
) -> None:
    from tests.flows.grids import PROJECT
    from tests.lora.tiny_lora import write_lora

    ours, kohya = write_lora(PROJECT / "data" / "base", tmp_path)
    (tmp_path / "prompts.txt").write_text("a fox emoji on a red background\n")
    asked: dict[str, Any] = {
        "checkpoint": str(PROJECT / "data" / "base"), "dataset": pictures,
        "prompts": str(tmp_path / "prompts.txt"), "samplers": ["own"], "steps": [2],
        "n_images": 4, "shard_size": 4, "etas": [0.0],
    }  # fmt: skip
    plain = run_grid(**asked)
    laid = run_grid(**asked, lora=[ours], lora_scales=[0.0, 1.0])
    other = run_grid(**asked, lora=[f"{kohya}:0.5"], lora_scales=[2.0], against=ours)
    base, with_lora = sorted(laid.rows, key=lambda row: row["loras"] or "")
    (without,), (layout,) = plain.rows, other.rows
    assert base["cell_digest"] == without["cell_digest"]
    assert laid.result is not None
    assert laid.result.images_drawn == 4  # those of scale 0 are the base's
    pictures = [images_of(row["cell_digest"]) for row in (base, with_lora, layout)]
    assert np.abs(pictures[0].astype(int) - pictures[1]).max() > 3
    assert np.abs(pictures[1].astype(int) - pictures[2]).max() <= 1
    _require_judged(other, Path(ours), Path(kohya))
    _require_shipped(with_lora, Path(ours), tmp_path / "shipped")


def _require_judged(run: GridRun, first: Path, second: Path) -> None:
    """The second LoRA was compared with the first, in its place in the same grid; on demand too."""
    assert run.result is not None
    assert run.result.verdict is not None
    base = run.rows[0]["checkpoint"]
    assert run.result.verdict.against == f"{first.stem} on {base}"
    words = ["verdict", second.stem, "--against", str(first), "--at", "2,own"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.stderr
    assert " at S = 2, own (LoRA 1)" in done.stdout
    page = Path(done.stdout.split("verdict: ")[1].strip()).read_text()
    assert f"{second.stem} on {base} against {first.stem} on {base}" in page
    refused = CliRunner().invoke(app, ["verdict", second.stem, "--against", base])
    assert refused.exit_code == 2
    assert "is a LoRA and" in refused.stderr


def _require_shipped(row: dict[str, Any], lora: Path, place: Path) -> None:
    """A cell with a LoRA is handed over with the file beside, and drawn again from it."""
    done = CliRunner().invoke(app, ["ship", row["cell_digest"], "--out", str(place)])
    assert done.exit_code == 0, done.stderr
    content = lora_bytes(epoch_files(lora)[0])  # as it was laid over: numbers alone in its header
    assert (place / lora.name).read_bytes() == content
    told = json.loads((place / "evidence.json").read_text())
    digest = hashlib.sha256(content).hexdigest()
    assert told["loras"] == [{"file": lora.name, "digest": digest, "scale": 1.0}]
    assert told["drawn_again"]["largest_difference_in_levels"] <= 1
    lines = (place / "README.md").read_text()
    assert f'pipe.load_lora_weights(".", weight_name={lora.name!r}' in lines
    assert "pipe.set_adapters(['lora_0'], [1.0])" in lines
