"""DiT, SiT, REPA and LightningDiT: what their own code said and drew, recorded from it.

`tests/peers/record_transformers.py` recorded it; weights are drawn anew for the recorded names and
shapes, and saved as a training of each saves them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from ddim_core.checkpoints.checkpoint import Checkpoint, load_checkpoint, scheduler_config
from ddim_core.checkpoints.convert import adopt, source_files
from ddim_core.diffusion.guidance import guided, within
from ddim_core.diffusion.sampling import sample
from ddim_core.diffusion.specs import SamplerSpec
from ddim_core.samplers.families import levels_of
from ddim_core.samplers.loop import draw
from ddim_core.samplers.name import parse_sampler
from ddim_core.samplers.scheduler import learns_variance, scheduler_for, set_steps
from ddim_core.samplers.streams import image_streams

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "transformers.npz")
META = json.loads(GOLDEN["meta"].tobytes())
SEEDS = {"dit": 0, "sit": 1, "repa": 2, "lightning": 3, "lightning_all": 3}
SBDM = "flow_sde?diffusion_form=SBDM&sigmas=[0.9,0.685,0.47,0.255,0.04]"
EVENLY = "flow_euler?sigmas=[1,0.8,0.6,0.4,0.2]"
TRAJECTORY = 2e-6  # of the largest value: sums in another order, or float64 there; measured 3e-7
FLOAT32 = 2e-6  # rounding through two layers, on answers of up to 2; measured 7e-7


def gold(name: str) -> torch.Tensor:
    return torch.from_numpy(GOLDEN[name])


def weights_of(name: str) -> dict[str, torch.Tensor]:
    draw = np.random.RandomState(SEEDS[name])
    return {
        key: torch.from_numpy((0.1 * draw.standard_normal(shape)).astype(np.float32))
        for key, shape in sorted(META["shapes"][name].items())
    }


def saved(name: str, folder: Path) -> Path:
    """A file as the training of each code writes it, with its average."""
    name, _, path_type = name.partition(" ")
    state = weights_of(name)
    raw = {key: weight + 1 for key, weight in state.items()}
    told: dict[str, Any] = {
        "dit": {"args": argparse.Namespace(model="DiT-XL/2", num_classes=10, num_heads=4)},
        "sit": {"args": argparse.Namespace(
            model="SiT-XL/2", num_classes=10, num_heads=4, path_type=path_type or "Linear",
            prediction="velocity", sample_eps=None,
        )},
        "repa": {"args": argparse.Namespace(
            model="SiT-XL/2", num_classes=1000, path_type="linear", prediction="v", qk_norm=True,
            proj_coeff=0.5,
        ), "steps": 400000},
        "lightning": {"config": {
            "model": {"model_type": "LightningDiT-XL/1", "use_rope": True},
            "data": {"num_classes": 10, "latent_norm": False},
            "transport": {"path_type": "Linear", "prediction": "velocity"},
            "sample": {"timestep_shift": 0.3},
        }},
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    path = folder / "0400000.pt"
    more = told[name.partition("_")[0]]
    torch.save({"model": raw, "ema": state, "opt": {"state": {}, "param_groups": []}} | more, path)
    return path


def tiny_decoder(folder: Path, channels: int = 4, **more: Any) -> None:
    torch.manual_seed(0)
    AutoencoderKL(
        latent_channels=channels, block_out_channels=(8, 8), norm_num_groups=4,
        down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
        sample_size=16, **more,
    ).save_pretrained(folder)  # fmt: skip


def opened(path: Path, out: Path, decoder: Path | None = None) -> Checkpoint:
    out.mkdir()
    adopt(source_files(path, decoder), out)
    return load_checkpoint(out)


def from_peer(name: str, tmp_path: Path) -> Checkpoint:
    tiny_decoder(tmp_path / "of" / "vae")
    return opened(saved(name, tmp_path / "of"), tmp_path / "out")


def test_dit_predicts_noise_and_its_variance_as_its_own_code(tmp_path: Path) -> None:
    got = from_peer("dit", tmp_path)
    said = got.model.unet(gold("x"), torch.tensor([137, 911]), gold("y"))[0]
    np.testing.assert_allclose(said.detach(), GOLDEN["dit_said"], rtol=0, atol=FLOAT32)


@pytest.mark.parametrize("name", ["sit", "repa", "lightning", "lightning_all"])
def test_a_flow_predicts_the_velocity_of_its_own_code(name: str, tmp_path: Path) -> None:
    got = from_peer(name, tmp_path)
    to_data = name != "repa"
    sigma = 1 - gold("t") if to_data else gold("t")
    said = got.model(gold("x"), 1000 * sigma, gold("y"))
    velocity = -said if to_data else said
    np.testing.assert_allclose(velocity, GOLDEN[f"{name}_said"], rtol=0, atol=FLOAT32)
    assert got.prediction_type == "flow_prediction"
    assert got.n_classes == (1000 if name == "repa" else 10)


def drawn(got: Checkpoint, own: dict[str, Any], sampler: str, more: dict[str, Any]) -> torch.Tensor:
    """Latents of classes 3 and 7 from the recorded noise, as a grid's loop draws them."""
    name = parse_sampler(sampler)
    scheduler, inside = scheduler_for(name, own), None
    set_steps(scheduler, name, META["steps"])
    if "within" in more:
        level, interval = levels_of(own), more["within"]
        inside = lambda t: within(interval, level(t))  # noqa: E731
    network = got.model.whole if learns_variance(scheduler) else got.model
    null, scale = got.null_label or 0, META["guidance"] if more else 1.0
    model = guided(network, gold("y"), null, scale, inside, more.get("channels"))
    with torch.inference_mode():
        return draw(model, scheduler, gold("x"), image_streams(0, range(2))).x


def assert_ends_alike(made: torch.Tensor, recorded: str) -> None:
    there = GOLDEN[recorded]
    np.testing.assert_allclose(made, there, rtol=0, atol=TRAJECTORY * np.abs(there).max())


@pytest.mark.parametrize(
    ("name", "recorded", "sampler", "more"),
    [
        ("sit", "sit_ode", EVENLY, {}),
        ("sit", "sit_sde_sigma", "flow_sde", {}),
        ("sit", "sit_sde_decreasing", "flow_sde?diffusion_form=decreasing", {}),
        ("sit", "sit_sde_SBDM", SBDM, {}),
        ("sit GVP", "sit_gvp_ode", "own", {}),
        ("sit GVP", "sit_gvp_sde_sigma", "flow_sde", {}),
        ("sit GVP", "sit_gvp_sde_SBDM", SBDM, {}),
        ("sit VP", "sit_vp_ode", "own", {}),
        ("sit VP", "sit_vp_sde_sigma", "flow_sde", {}),
        ("sit VP", "sit_vp_sde_linear", "flow_sde?diffusion_form=linear", {}),
        ("sit VP", "sit_vp_sde_SBDM", "flow_sde?diffusion_form=SBDM", {}),
        ("repa", "repa_ode", EVENLY, {"within": (0.3, 0.7)}),
        ("repa", "repa_sde", "flow_sde", {"within": (0.3, 0.7)}),
        ("lightning", "lightning_ode", EVENLY, {"within": (0.0, 0.89), "channels": 3}),
        ("dit", "dit_ddpm", "ddpm", {}),
    ],
)
def test_a_whole_run_ends_where_its_own_sampler_ends(
    name: str, recorded: str, sampler: str, more: dict[str, Any], tmp_path: Path
) -> None:
    got = from_peer(name, tmp_path)
    assert_ends_alike(drawn(got, scheduler_config(tmp_path / "out"), sampler, more), recorded)


@pytest.mark.parametrize(("recorded", "scale"), [("dit_ddim", 1.0), ("dit_ddim_guided", 2.5)])
def test_ddim_of_our_own_ends_where_dits_ends(recorded: str, scale: float, tmp_path: Path) -> None:
    got = from_peer("dit", tmp_path)
    model = guided(got.model, gold("y"), got.null_label or 0, scale, channels=3)
    spec = SamplerSpec(META["steps"], spacing="leading")
    with torch.inference_mode():
        *_, last = sample(model, got.require_schedule(), spec, gold("x"))
    assert_ends_alike(last.x, recorded)
