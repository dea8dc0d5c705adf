"""Checkpoint folders: written alike, read by diffusers, refused when something is missing."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, UNet2DModel

from ddim_core.checkpoints.checkpoint import load_checkpoint, save_pipeline, scheduler_config
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import NoiseSpec
from ddim_core.networks.denoisers import UNetModel, toy_unet
from ddim_core.networks.specs import ToyModelSpec
from ddim_core.samplers.loop import draw
from ddim_core.samplers.name import parse_sampler
from ddim_core.samplers.scheduler import scheduler_for, set_steps

SMALL = ToyModelSpec(widths=(8, 16), norm_groups=4)
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def unet() -> UNet2DModel:
    return toy_unet(SMALL, 0).to(memory_format=torch.channels_last)


@pytest.fixture
def folder(tmp_path: Path, unet: UNet2DModel) -> Path:
    save_pipeline(tmp_path / "toy", unet, NoiseSpec(), training_step=42)
    return tmp_path / "toy"


def test_a_saved_pipeline_comes_back_with_the_same_bits(folder: Path, unet: UNet2DModel) -> None:
    got = load_checkpoint(folder)
    assert (got.prediction_type, got.resolution, got.channels) == ("epsilon", 8, 1)
    assert (got.training_step, got.name) == (42, "toy")
    assert np.array_equal(got.schedule.alpha_bar, NoiseSchedule.from_spec(NoiseSpec()).alpha_bar)
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0, 500, 999])
    assert torch.equal(got.model(x, t), UNetModel(unet)(x, t))


def test_diffusers_opens_the_folder(folder: Path, unet: UNet2DModel) -> None:
    pipeline = DDPMPipeline.from_pretrained(folder, local_files_only=True)
    pairs = zip(pipeline.unet.state_dict().items(), unet.state_dict().items(), strict=True)
    assert all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline(batch_size=1, num_inference_steps=2, output_type="np").images.shape == (
        (1, 8, 8, 1)
    )


def test_two_saves_give_the_same_bytes(folder: Path, tmp_path: Path, unet: UNet2DModel) -> None:
    save_pipeline(tmp_path / "again", unet, NoiseSpec(), training_step=42)
    files = {
        root: {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in (folder, tmp_path / "again")
    }
    assert len(files[folder]) == 5
    assert files[folder] == files[tmp_path / "again"]


def test_what_a_network_learnt_stands_in_its_folder(tmp_path: Path, unet: UNet2DModel) -> None:
    save_pipeline(tmp_path / "v", unet, NoiseSpec("cosine"), 1, "v")
    v = load_checkpoint(tmp_path / "v")
    assert v.prediction_type == "v_prediction"
    cosine = NoiseSchedule.from_spec(NoiseSpec("cosine"))
    assert np.array_equal(v.require_schedule().alpha_bar, cosine.alpha_bar)
    save_pipeline(tmp_path / "flow", unet, NoiseSpec(n_train=500), 1, "flow")
    flow = load_checkpoint(tmp_path / "flow")
    assert (flow.prediction_type, flow.schedule) == ("flow_prediction", None)
    config = scheduler_config(tmp_path / "flow")
    assert config["_class_name"] == "FlowMatchEulerDiscreteScheduler"
    assert config["num_train_timesteps"] == 500
    with pytest.raises(ValueError, match="knows no schedule of betas"):
        flow.require_schedule()


def test_diffusers_draws_from_the_folder_of_a_flow_what_our_loop_does(
    tmp_path: Path, unet: UNet2DModel
) -> None:
    save_pipeline(tmp_path / "flow", unet, NoiseSpec(), 1, "flow")
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "flow", local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    stream = torch.Generator().manual_seed(3)
    x_T = torch.randn((2, 1, 8, 8), generator=stream)
    theirs = pipeline(2, stream.manual_seed(3), num_inference_steps=3, output_type="np").images
    own = parse_sampler("own")
    scheduler = scheduler_for(own, scheduler_config(tmp_path / "flow"))
    set_steps(scheduler, own, 3)
    with torch.inference_mode():
        x = draw(load_checkpoint(tmp_path / "flow").model, scheduler, x_T).x
    ours = (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    assert ours.std() > 0.05, "blank images would pass"
    assert np.abs(theirs - ours).max() < 1e-5  # float32 rounding of a network, three times


@pytest.mark.parametrize(
    "noise",
    [
        NoiseSpec("quad", 500, 8.5e-4, 0.012),
        NoiseSpec("cosine"),
        NoiseSpec("linear", zero_snr=True),
        NoiseSpec("sigmoid", 100),
        NoiseSpec("constant", 100),
    ],
)
def test_every_schedule_survives_the_way_through_diffusers(
    noise: NoiseSpec, tmp_path: Path, unet: UNet2DModel
) -> None:
    save_pipeline(tmp_path, unet, noise, training_step=1)
    schedule = load_checkpoint(tmp_path).schedule
    expected = NoiseSchedule.from_spec(noise).alpha_bar
    # betas taken back from alpha_bar and multiplied again: float64 rounding over T factors
    np.testing.assert_allclose(schedule.alpha_bar, expected, rtol=1e-12, atol=0)


def test_a_bare_network_folder_gets_the_schedule_of_ddpm(tmp_path: Path, unet: UNet2DModel) -> None:
    toy_unet(SMALL, 0).save_pretrained(tmp_path / "bare")
    got = load_checkpoint(tmp_path / "bare")
    assert np.array_equal(got.schedule.alpha_bar, NoiseSchedule.from_spec(NoiseSpec()).alpha_bar)
    assert got.training_step is None
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([1, 2])
    assert torch.equal(got.model(x, t), UNetModel(unet)(x, t))


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "unet" / WEIGHTS).unlink()
    with pytest.raises(ValueError, match=f"unet holds no weights; {WEIGHTS} is missing"):
        load_checkpoint(folder)


def test_pickled_weights_are_refused_unread_with_the_way_out(folder: Path, tmp_path: Path) -> None:
    (folder / "unet" / WEIGHTS).unlink()
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (trap,)

    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match=r"pickle.*convert it once.*save_pretrained"):
        load_checkpoint(folder)
    assert not trap.exists()


@pytest.mark.parametrize("missing", ["unet/config.json", "scheduler/scheduler_config.json"])
def test_a_missing_configuration_is_named(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(ValueError, match=f"{missing} is missing"):
        load_checkpoint(folder)


def test_no_folder_and_no_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no folder"):
        load_checkpoint(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "UNet2DConditionModel"}, "must be a UNet2DModel"),
        ({"out_channels": 3}, "1 input and 3 output"),
        ({"class_embed_type": "timestep"}, "class_embed_type is 'timestep'"),
        ({"num_class_embeds": 10}, "lacks 1 weights .* class_embedding.weight"),
        ({"sample_size": None}, "one whole number"),
    ],
)
def test_a_network_that_cannot_be_sampled_is_refused(
    folder: Path, change: dict[str, object], message: str
) -> None:
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        load_checkpoint(folder)
