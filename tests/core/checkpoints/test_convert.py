"""Other people's checkpoints: every form predicts the noise that its original predicts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from diffusers import DDPMPipeline, UNet2DModel
from diffusers.training_utils import EMAModel
from torch import nn

from ddim_core.checkpoints.checkpoint import Checkpoint, load_checkpoint
from ddim_core.checkpoints.convert import adopt, source_digest, source_files
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import NoiseSpec, Weights
from ddim_core.networks.backbones.wide_time import wide_time_unet
from tests.core.foreign_files import (
    SETTINGS,
    answer,
    course_file,
    course_names,
    official_like,
    official_names,
    pickled_modules,
    pixel_pipeline,
    small_unet,
)

# Rounding of float32 (6e-8 relative) through some twenty layers, on answers of about 0.1; the
# kernels differ because a checkpoint always runs on one batch size. Measured worst: 4e-7.
FLOAT32 = 2e-6

Opener = Callable[..., Checkpoint]


@pytest.fixture
def opened(tmp_path: Path) -> Opener:
    def open_it(path: Path, weights: Weights = "ema") -> Checkpoint:
        out = tmp_path / f"adopted-{weights}"
        out.mkdir()
        adopt(source_files(path), out, weights)
        return load_checkpoint(out)

    return open_it


def assert_answers_alike(got: Checkpoint, unet: Any) -> None:
    expected = answer(unet)
    assert expected.std() > 0.05, "a network that answers nothing would pass"
    assert (answer(got.model) - expected).abs().max() < FLOAT32


def states_file(path: Path, raw: UNet2DModel, ema: UNet2DModel | None) -> Path:
    """A file as the official code writes it while it trains, behind DataParallel."""
    names = {f"module.{name}": weight for name, weight in official_names(raw).items()}
    states: list[Any] = [names, {"state": {}, "param_groups": []}, 3, 5000]
    torch.save(states + ([official_names(ema)] if ema else []), path)
    return path


def test_a_pipeline_folder_is_stored_as_it_is(tmp_path: Path, opened: Opener) -> None:
    unet = small_unet()
    folder = pixel_pipeline(tmp_path / "pipeline", unet)
    assert_answers_alike(opened(folder), unet)
    for name in ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json"):
        assert (tmp_path / "adopted-ema" / name).read_bytes() == (folder / name).read_bytes()


def test_a_pipeline_without_folders_is_read_as_older_ones_on_the_hub(
    tmp_path: Path, opened: Opener
) -> None:
    unet = small_unet()
    folder = pixel_pipeline(tmp_path / "pipeline", unet)
    for path in [*(folder / "unet").iterdir(), *(folder / "scheduler").iterdir()]:
        path.rename(folder / path.name)
    for part in ("unet", "scheduler"):
        (folder / part).rmdir()
    got = opened(folder)
    assert_answers_alike(got, unet)
    assert np.array_equal(
        got.schedule.alpha_bar, NoiseSchedule.from_spec(NoiseSpec("cosine")).alpha_bar
    )
    DDPMPipeline.from_pretrained(tmp_path / "adopted-ema", local_files_only=True)


def test_pickled_pipeline_weights_become_safetensors(tmp_path: Path, opened: Opener) -> None:
    unet = small_unet()
    folder = pixel_pipeline(tmp_path / "pipeline", unet)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(safetensors.torch.load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    assert_answers_alike(opened(folder), unet)
    DDPMPipeline.from_pretrained(tmp_path / "adopted-ema", local_files_only=True)


def test_attention_by_its_older_names_is_read(tmp_path: Path, opened: Opener) -> None:
    unet = small_unet()
    folder = pixel_pipeline(tmp_path / "pipeline", unet)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for name, weight in safetensors.torch.load_file(weights).items():
        for new, old in older.items():
            name = name.replace(new, old)
        state[name] = weight
    safetensors.torch.save_file(state, weights, metadata={"format": "pt"})
    assert_answers_alike(opened(folder), unet)


def test_a_training_folder_gives_its_average_with_step_and_schedule(
    tmp_path: Path, opened: Opener
) -> None:
    raw, averaged = small_unet(1), small_unet(2)
    pixel_pipeline(tmp_path / "run", raw)  # the schedule stands beside the training's folders
    folder = tmp_path / "run" / "checkpoint-700"
    raw.save_pretrained(folder / "unet")
    ema = EMAModel(averaged.parameters(), model_cls=UNet2DModel, model_config=averaged.config)
    ema.optimization_step = 700
    ema.save_pretrained(folder / "unet_ema")
    got = opened(folder)
    assert_answers_alike(got, averaged)
    assert (got.weights, got.training_step) == ("ema", 700)
    cosine = NoiseSchedule.from_spec(NoiseSpec("cosine")).alpha_bar
    assert np.array_equal(got.schedule.alpha_bar, cosine)
    DDPMPipeline.from_pretrained(tmp_path / "adopted-ema", local_files_only=True)
    got = opened(folder, "raw")
    assert_answers_alike(got, raw)
    assert got.weights == "raw"


def test_a_bare_network_folder_is_read(tmp_path: Path, opened: Opener) -> None:
    unet = small_unet()
    unet.save_pretrained(tmp_path / "bare")
    assert_answers_alike(opened(tmp_path / "bare"), unet)


@pytest.mark.parametrize("config", ["config.json", "model.json"])
def test_a_safetensors_file_takes_the_settings_beside_it(
    config: str, tmp_path: Path, opened: Opener
) -> None:
    unet = small_unet()
    folder = pixel_pipeline(tmp_path / "pipeline", unet)
    place = tmp_path / "file"
    place.mkdir()
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(place / "model.safetensors")
    (folder / "unet" / "config.json").rename(place / config)
    got = opened(place / "model.safetensors")
    assert_answers_alike(got, unet)
    assert "linear from 0.0001 to 0.02 with T = 1000 is assumed" in got.assumed[0]
    (folder / "scheduler" / "scheduler_config.json").rename(place / "scheduler_config.json")
    again = tmp_path / "again"
    again.mkdir()
    adopt(source_files(place / "model.safetensors"), again)
    schedule = load_checkpoint(again).schedule.alpha_bar
    assert np.array_equal(schedule, NoiseSchedule.from_spec(NoiseSpec("cosine")).alpha_bar)
    assert load_checkpoint(again).assumed == ()


@pytest.mark.parametrize(("weights", "which"), [("ema", 2), ("raw", 1)])
def test_official_states_give_the_average_last_in_the_list(
    weights: Weights, which: int, tmp_path: Path, opened: Opener
) -> None:
    path = states_file(tmp_path / "ckpt.pth", official_like(1), official_like(2))
    (tmp_path / "config.yml").write_text(yaml.safe_dump(SETTINGS))
    got = opened(path, weights)
    assert_answers_alike(got, official_like(which))
    assert (got.weights, got.training_step, got.resolution) == (weights, 5000, 16)
    assert got.assumed == ()
    expected = NoiseSchedule.from_spec(NoiseSpec("quad", 500, 1e-4, 0.01)).alpha_bar
    assert np.array_equal(got.schedule.alpha_bar, expected)
    DDPMPipeline.from_pretrained(tmp_path / f"adopted-{weights}", local_files_only=True)


def test_official_settings_are_read_as_the_official_code_dumps_them(
    tmp_path: Path, opened: Opener
) -> None:
    from argparse import Namespace

    nested = Namespace(**{section: Namespace(**values) for section, values in SETTINGS.items()})
    path = states_file(tmp_path / "ckpt.pth", official_like(1), None)
    (tmp_path / "config.yml").write_text(yaml.dump(nested, default_flow_style=False))
    got = opened(path)
    assert (len(got.schedule.alpha_bar), got.resolution, got.weights) == (500, 16, None)


def test_a_published_file_without_settings_says_what_it_assumes(
    tmp_path: Path, opened: Opener
) -> None:
    path = tmp_path / "model-790000.ckpt"
    torch.save(official_names(official_like()), path, _use_new_zipfile_serialization=False)
    got = opened(path)
    assert_answers_alike(got, official_like())
    assert (got.training_step, got.resolution) == (790000, 32)
    assert len(got.assumed) == 2
    assert np.array_equal(got.schedule.alpha_bar, NoiseSchedule.from_spec(NoiseSpec()).alpha_bar)


def test_settings_of_another_network_are_refused(tmp_path: Path, opened: Opener) -> None:
    path = states_file(tmp_path / "ckpt.pth", official_like(), None)
    other = {**SETTINGS, "model": {**SETTINGS["model"], "ch": 128}}
    (tmp_path / "config.yml").write_text(yaml.safe_dump(other))
    with pytest.raises(ValueError, match=r"of another network: widths \[128, 256\]"):
        opened(path)


def test_a_first_level_wider_than_the_first_convolution_is_refused(
    tmp_path: Path, opened: Opener
) -> None:
    state = official_names(official_like())
    state["conv_in.weight"] = state["conv_in.weight"][:16]
    torch.save(state, tmp_path / "model-1.ckpt")
    with pytest.raises(ValueError, match="ch_mult starts with 2"):
        opened(tmp_path / "model-1.ckpt")


def wide(n_classes: int | None = None) -> UNet2DModel:
    """A network like the course's, laid out by the project's own class and filled."""
    torch.manual_seed(3)
    config = {**small_unet().config, "time_features": 64, "num_class_embeds": n_classes}
    config.pop("_use_default_values")  # where diffusers would read the defaults' names
    unet = wide_time_unet(config).to_empty(device="cpu").eval()
    for weight in unet.parameters():
        nn.init.normal_(weight, std=0.1)
    return unet


@pytest.mark.parametrize("as_modules", [True, False])
def test_the_courses_file_is_read_without_its_code(
    as_modules: bool, tmp_path: Path, opened: Opener
) -> None:
    unet = wide()
    hparams = pickled_modules(16) if as_modules else {"network": {"image_resolution": 16}}
    got = opened(course_file(tmp_path / "last.ckpt", course_names(unet), hparams))
    assert_answers_alike(got, unet)
    assert (got.resolution, got.n_classes, got.assumed) == (16, None, ())
    betas = torch.linspace(1e-4, 0.02, 500).double().tolist()
    expected = NoiseSchedule.from_betas(betas).alpha_bar
    np.testing.assert_allclose(got.schedule.alpha_bar, expected, rtol=1e-12)  # back from betas


def test_the_courses_first_class_label_is_no_class_and_becomes_the_last(
    tmp_path: Path, opened: Opener
) -> None:
    unet = wide(n_classes=4)
    state = course_names(unet)
    got = opened(course_file(tmp_path / "last.ckpt", state, pickled_modules(16)))
    assert (got.n_classes, got.null_label) == (3, 3)
    x, t = torch.randn(4, 3, 16, 16), torch.tensor([3, 30, 300, 400])
    with torch.no_grad():
        expected = unet(x, t, class_labels=torch.tensor([1, 2, 3, 0])).sample
    assert (got.model(x, t, torch.tensor([0, 1, 2, 3])) - expected).abs().max() < FLOAT32


def test_a_checkpoint_inside_an_mlflow_model_is_found(tmp_path: Path, opened: Opener) -> None:
    unet = small_unet()
    pixel_pipeline(tmp_path / "model" / "artifacts" / "pipeline", unet)
    (tmp_path / "model" / "MLmodel").write_text("flavors: {}\n")
    assert_answers_alike(opened(tmp_path / "model"), unet)


def test_the_digest_is_of_the_content_wherever_it_lies(tmp_path: Path) -> None:
    one, two = (pixel_pipeline(tmp_path / name, small_unet()) for name in ("one", "two"))
    assert source_digest(source_files(one)) == source_digest(source_files(two))
    path = two / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"beta_end": 0.03}))
    assert source_digest(source_files(one)) != source_digest(source_files(two))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "there is no checkpoint"),
        (lambda p: p.mkdir(), "holds no checkpoint"),
        (lambda p: torch.save({"weight": torch.ones(2)}, p), "of no known network"),
        (lambda p: torch.save([1, 2], p), "no state dict"),
        (lambda p: torch.save(torch.ones(2), p), "holds a Tensor"),
        (
            lambda p: torch.save({"model.diffusion_model.x": torch.ones(1)}, p),
            "from_single_file",
        ),
        (lambda p: torch.save({"conv_in.weight": torch.ones(1)}, p), "must lie beside it"),
    ],
)
def test_what_is_no_checkpoint_is_refused_with_a_reason(
    make: Callable[[Path], Any], message: str, tmp_path: Path, opened: Opener
) -> None:
    make(tmp_path / "given")
    with pytest.raises(ValueError, match=message):
        opened(tmp_path / "given")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_out_channels": [10**12, 64]}, "block_out_channels is 1000000000000"),
        ({"layers_per_block": 10**5}, "layers_per_block is 100000"),
        ({"block_out_channels": [32, 96]}, "has shape"),
        ({"layers_per_block": 2}, "lacks"),
        ({"down_block_types": ["NoSuchBlock", "DownBlock2D"]}, "describes no UNet2DModel"),
    ],
)
def test_settings_that_do_not_fit_the_weights_are_refused_before_anything_is_built(
    change: dict[str, Any], message: str, tmp_path: Path, opened: Opener
) -> None:
    folder = pixel_pipeline(tmp_path / "pipeline", small_unet())
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        opened(folder)


@pytest.mark.parametrize("bare", [True, False])
def test_weights_in_several_files_are_read_as_one(
    bare: bool, tmp_path: Path, opened: Opener
) -> None:
    unet = small_unet()
    folder = pixel_pipeline(tmp_path / "pipeline", unet)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    unet.save_pretrained(folder / "unet", max_shard_size="300KB")
    assert len(list((folder / "unet").glob("*-of-*.safetensors"))) > 2
    assert_answers_alike(opened(folder / "unet" if bare else folder), unet)
    DDPMPipeline.from_pretrained(tmp_path / "adopted-ema", local_files_only=True)


def test_an_index_of_weights_names_no_file_elsewhere(tmp_path: Path, opened: Opener) -> None:
    unet = small_unet()
    unet.save_pretrained(tmp_path / "bare", max_shard_size="300KB")
    (index,) = (tmp_path / "bare").glob("*.index.json")
    told = json.loads(index.read_text())
    told["weight_map"]["conv_in.bias"] = "../other.safetensors"
    index.write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"the name '\.\./other.safetensors' leads out"):
        opened(tmp_path / "bare")


@pytest.mark.parametrize("place", ["of the pipeline", "beside the config"])
def test_a_bare_network_takes_the_schedule_that_lies_near(
    place: str, tmp_path: Path, opened: Opener
) -> None:
    folder = pixel_pipeline(tmp_path / "pipeline", small_unet())
    if place == "beside the config":
        scheduler = folder / "scheduler" / "scheduler_config.json"
        scheduler.rename(folder / "unet" / "scheduler_config.json")
    got = opened(folder / "unet")
    cosine = NoiseSchedule.from_spec(NoiseSpec("cosine")).alpha_bar
    assert np.array_equal(got.schedule.alpha_bar, cosine)
    assert got.assumed == ()


def test_a_bare_network_without_a_schedule_says_what_is_assumed(
    tmp_path: Path, opened: Opener
) -> None:
    small_unet(sample_size=(16, 16)).save_pretrained(tmp_path / "bare")
    got = opened(tmp_path / "bare")
    assert "T = 1000 is assumed" in got.assumed[0]
    assert got.resolution == 16


@pytest.mark.parametrize(("weights", "seed"), [("ema", 0), ("raw", 1)])
def test_a_network_with_weights_that_are_not_averaged_beside_it_gives_either(
    weights: Weights, seed: int, tmp_path: Path, opened: Opener
) -> None:
    folder = pixel_pipeline(tmp_path / "pipeline", small_unet())
    small_unet(1).save_pretrained(folder / "unet", variant="non_ema")
    got = opened(folder, weights)
    assert_answers_alike(got, small_unet(seed))
    assert got.weights == weights


def test_the_step_in_the_name_of_a_trainings_folder_is_read(tmp_path: Path, opened: Opener) -> None:
    small_unet().save_pretrained(tmp_path / "checkpoint-700" / "unet")
    assert opened(tmp_path / "checkpoint-700").training_step == 700
    (tmp_path / "checkpoint-700").rename(tmp_path / "checkpoint-800")
    assert source_digest(source_files(tmp_path / "checkpoint-800"))


def named_in(folder: Path) -> Any:
    return json.loads((folder / "model_index.json").read_text())["scheduler"]


@pytest.mark.parametrize(
    ("scheduler", "predicts"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, "flow_prediction"),
        ({"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": True,
          "prediction_type": "flow_prediction"}, "flow_prediction"),
        ({"_class_name": "EDMEulerScheduler", "sigma_max": 40.0}, "epsilon"),
        ({"_class_name": "EDMDPMSolverMultistepScheduler", "prediction_type": "v_prediction"},
         "v_prediction"),
    ],
)  # fmt: skip
def test_a_flow_or_an_edm_is_opened_without_a_schedule_of_betas(
    scheduler: dict[str, Any], predicts: str, tmp_path: Path, opened: Opener
) -> None:
    folder = pixel_pipeline(tmp_path / "pipeline", small_unet())
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", scheduler["_class_name"]]
    (folder / "model_index.json").write_text(json.dumps(index))
    got = opened(folder)
    assert (got.schedule, got.prediction_type) == (None, predicts)
    assert_answers_alike(got, small_unet())


@pytest.mark.parametrize("as_file", [False, True])
def test_a_bare_network_beside_the_scheduler_of_a_flow_is_one(
    as_file: bool, tmp_path: Path, opened: Opener
) -> None:
    small_unet().save_pretrained(tmp_path / "bare")
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}
    (tmp_path / "bare" / "scheduler_config.json").write_text(json.dumps(flow))
    weights = tmp_path / "bare" / "diffusion_pytorch_model.safetensors"
    got = opened(weights if as_file else tmp_path / "bare")
    assert (got.schedule, got.prediction_type) == (None, "flow_prediction")
    assert named_in(tmp_path / "adopted-ema") == ["diffusers", flow["_class_name"]]
    DDPMPipeline.from_pretrained(tmp_path / "adopted-ema", local_files_only=True)


@pytest.mark.parametrize(
    ("scheduler", "told"),
    [
        ({"_class_name": "ScoreSdeVeScheduler", "sigma_max": 1348.0}, "without beta_schedule"),
        ({"_class_name": "CMStochasticIterativeScheduler"}, "without beta_schedule"),
        ({"_class_name": "FlowMatchLCMScheduler"}, "distilled to a consistency model"),
        # Diffusers opens it by the index, as a DDPM of the usual betas, which nobody trained.
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "without beta_schedule"),
    ],
)
def test_a_pipeline_that_no_sampler_draws_is_refused(
    scheduler: dict[str, Any], told: str, tmp_path: Path, opened: Opener
) -> None:
    folder = pixel_pipeline(tmp_path / "pipeline", small_unet())
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    with pytest.raises(ValueError, match=told):
        opened(folder)
