"""Schedules of betas are those of diffusers' own classes, and what has none is refused in words."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest

from ddim_core.checkpoints.checkpoint import load_checkpoint, scheduler_config
from ddim_core.checkpoints.convert import adopt, source_files
from ddim_core.diffusion.lint import lint
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.scheduler_config import ELSEWHERE, class_defaults
from ddim_core.diffusion.specs import SamplerSpec
from tests.core.foreign_files import pixel_pipeline, small_unet, text_pipeline

CLASSES = {
    name: kind
    for name in dir(diffusers.schedulers)
    if inspect.isclass(kind := getattr(diffusers.schedulers, name)) and hasattr(kind, "from_config")
}
SAMPLED = {
    "DDIMScheduler", "DDIMInverseScheduler", "DDIMParallelScheduler", "DDPMScheduler",
    "DDPMParallelScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler",
    "DPMSolverMultistepInverseScheduler", "DPMSolverSDEScheduler", "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "LMSDiscreteScheduler",
    "PNDMScheduler", "RePaintScheduler", "SASolverScheduler", "UnCLIPScheduler",
    "UniPCMultistepScheduler",
}  # fmt: skip
# Diffusers multiplies 1000 float32 factors of rounding 6e-8 each, as in test_schedule.py.
FLOAT32 = 2e-6


def test_every_scheduler_of_diffusers_has_its_own_schedule_or_is_refused_in_words() -> None:
    accepted = set()
    for name, kind in CLASSES.items():
        try:
            ours = NoiseSchedule.from_diffusers({"_class_name": name}).alpha_bar
        except ValueError as error:
            refusal = str(error)
            assert name in refusal
            assert "sample" in refusal
            continue
        accepted.add(name)
        if name not in ELSEWHERE:  # torchsde is not here
            peer = kind().alphas_cumprod.double().numpy()
            np.testing.assert_allclose(ours, peer, rtol=0, atol=FLOAT32, err_msg=name)
    assert accepted >= SAMPLED
    assert accepted - SAMPLED == set(), "a scheduler that is new in diffusers; look at it"


def test_defaults_written_by_hand_are_those_in_the_source_of_diffusers() -> None:
    source = Path(diffusers.__file__).parent / "schedulers" / "scheduling_dpmsolver_sde.py"
    (made,) = [
        node
        for kind in ast.parse(source.read_text()).body
        if isinstance(kind, ast.ClassDef) and kind.name == "DPMSolverSDEScheduler"
        for node in kind.body
        if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    ]
    names = [argument.arg for argument in made.args.args[1:]]
    told = dict(zip(names, map(ast.literal_eval, made.args.defaults), strict=True))
    ours = ELSEWHERE["DPMSolverSDEScheduler"]
    assert {name: told[name] for name in ours} == ours


@pytest.mark.parametrize("name", sorted(SAMPLED - {"DPMSolverSDEScheduler", "UnCLIPScheduler"}))
def test_betas_that_a_config_is_silent_on_are_its_class_s_and_said(name: str) -> None:
    """Also where some of them are there, as in configurations written by hand."""
    config = {"_class_name": name, "beta_schedule": "linear", "beta_end": 0.015}
    peer = CLASSES[name](beta_schedule="linear", beta_end=0.015).alphas_cumprod.double().numpy()
    schedule = NoiseSchedule.from_diffusers(config)
    np.testing.assert_allclose(schedule.alpha_bar, peer, rtol=0, atol=FLOAT32)
    (told,) = found(schedule, config, "default_betas")
    start = (class_defaults(name) or {})["beta_start"]
    assert f"diffusers' default of {name}" in told
    assert f"beta_start = {start}" in told
    assert "beta_end" not in told
    assert found(schedule, {**CLASSES[name]().config, "_class_name": name}, "default_betas") == []


def test_a_class_that_diffusers_does_not_have_takes_what_is_usual_and_says_so() -> None:
    config = {"_class_name": "MyScheduler", "beta_schedule": "scaled_linear"}
    schedule = NoiseSchedule.from_diffusers(config)
    assert np.array_equal(schedule.alpha_bar, NoiseSchedule.quad(1000, 1e-4, 0.02).alpha_bar)
    (told,) = found(schedule, config, "default_betas")
    assert "diffusers' default of DDIMScheduler (it has no MyScheduler)" in told


def found(schedule: NoiseSchedule, config: dict[str, Any], code: str, clip: bool = False) -> Any:
    spec = SamplerSpec(steps=10, spacing="trailing", clip=clip)
    return [told.message for told in lint(schedule, spec, config) if told.code == code]


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize(
    "name",
    ["EulerDiscreteScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler",
     "UniPCMultistepScheduler"],
)  # fmt: skip
def test_nothing_is_said_of_entries_that_neither_the_config_nor_its_class_has(
    name: str, clip: bool
) -> None:
    config = {**CLASSES[name]().config, "_class_name": name}
    schedule = NoiseSchedule.from_diffusers(config)
    spec = SamplerSpec(steps=10, spacing="trailing", clip=clip)
    assert not any("clip_sample" in told.message for told in lint(schedule, spec, config))
    config |= {"clip_sample": not clip}
    (told,) = found(schedule, config, "clip_differs", clip)
    assert told.startswith(f"The config says clip_sample = {not clip} (which {name}")


def test_clipping_by_default_is_told_as_the_default_of_its_class() -> None:
    schedule = NoiseSchedule.linear(1000, 1e-4, 0.02)
    for name, clip in (("DDIMScheduler", False), ("HeunDiscreteScheduler", True)):
        (told,) = found(schedule, {"_class_name": name}, "clip_differs", clip)
        assert f"diffusers' default of {name} ({not clip})" in told
        assert "config says" not in told


def test_the_width_of_clipping_and_thresholding_are_told() -> None:
    schedule = NoiseSchedule.linear(1000, 1e-4, 0.02)
    wide = {"_class_name": "DDPMScheduler", "clip_sample": True, "clip_sample_range": 2.5}
    for clip, ours in ((True, "clips it to [-1, 1]"), (False, "does not clip it")):
        (told,) = found(schedule, wide, "clip_range_differs", clip)
        assert "[-2.5, 2.5]" in told
        assert ours in told
    assert found(schedule, wide | {"clip_sample": False}, "clip_range_differs", clip=True) == []
    dynamic = {"_class_name": "DDIMScheduler", "thresholding": True, "sample_max_value": 1.5}
    (told,) = found(schedule, dynamic, "thresholding_differs")
    assert "dynamic_thresholding_ratio = 0.995, sample_max_value = 1.5" in told


def rewritten(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def adopted(folder: Path, out: Path) -> Path:
    out.mkdir()
    adopt(source_files(folder), out)
    return out


@pytest.mark.parametrize("name", ["LCMScheduler", "TCDScheduler"])
@pytest.mark.parametrize("place", ["index", "scheduler"])
def test_networks_distilled_to_consistency_are_refused(
    name: str, place: str, tmp_path: Path
) -> None:
    folder = pixel_pipeline(tmp_path / "pipeline", small_unet())
    if place == "index":
        rewritten(folder / "model_index.json", scheduler=["diffusers", name])
    else:
        rewritten(folder / "scheduler" / "scheduler_config.json", _class_name=name)
    with pytest.raises(ValueError, match=rf"{name}: its network is distilled"):
        adopted(folder, tmp_path / "out")
    with pytest.raises(ValueError, match=rf"{name}: its network is distilled"):
        load_checkpoint(folder)


def test_a_network_that_is_told_of_its_guidance_is_refused(tmp_path: Path) -> None:
    folder = text_pipeline(tmp_path / "pipeline")
    network = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet")
    told = {**network.config, "time_cond_proj_dim": 8}
    diffusers.UNet2DConditionModel.from_config(told).save_pretrained(folder / "unet")
    with pytest.raises(ValueError, match="time_cond_proj_dim is 8"):
        adopted(folder, tmp_path / "one")
    rewritten(folder / "model_index.json", _class_name="LatentConsistencyModelPipeline")
    with pytest.raises(ValueError, match="the pipeline is a LatentConsistencyModelPipeline"):
        adopted(folder, tmp_path / "two")


@pytest.mark.parametrize("kept", [{}, {"_class_name": "DDIMScheduler"}])
def test_the_class_in_the_pipelines_index_decides_as_in_diffusers(
    kept: dict[str, Any], tmp_path: Path
) -> None:
    folder = pixel_pipeline(tmp_path / "pipeline", small_unet())
    rewritten(folder / "model_index.json", scheduler=["diffusers", "HeunDiscreteScheduler"])
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(kept))
    peer = diffusers.HeunDiscreteScheduler.from_pretrained(folder, subfolder="scheduler")
    out = adopted(folder, tmp_path / "out")
    ours = load_checkpoint(out).schedule
    expected = peer.alphas_cumprod.double().numpy()
    np.testing.assert_allclose(ours.alpha_bar, expected, rtol=0, atol=FLOAT32)
    (told,) = found(ours, scheduler_config(out), "default_betas")
    assert "HeunDiscreteScheduler" in told


WRONG: list[tuple[str, Any]] = [
    *[("steps_offset", value) for value in (None, [1], -5, "1", 0.5, True, 1000, 10**9)],
    *[("timestep_spacing", value) for value in (None, "log", ["leading"], 3)],
    *[(name, value) for name in ("clip_sample", "thresholding", "rescale_betas_zero_snr",
                                 "set_alpha_to_one") for value in ("False", 0, 1.0, [False])],
    *[("trained_betas", value) for value in (["a"], "linear", 0.1, [None], [True], {})],
    *[(name, value) for name in ("beta_start", "beta_end")
      for value in (None, "0.1", float("inf"), [0.1], True)],
    *[("beta_schedule", value) for value in (["linear"], None, 1, {})],
    *[("num_train_timesteps", value) for value in (None, "1000", 1000.0, 0, True)],
    *[("clip_sample_range", value) for value in (0, -1.0, "1", float("inf"))],
    *[("dynamic_thresholding_ratio", value) for value in (0, 1.5, "0.9")],
    *[("sample_max_value", value) for value in (0, "1", [1.0])],
    *[("prediction_type", value) for value in (None, 3, ["epsilon"])],
    *[("_class_name", value) for value in ("os.system", 5, ["DDIMScheduler"], "")],
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_an_entry_of_another_type_or_out_of_its_range_is_refused_by_name(
    name: str, value: Any
) -> None:
    from ddim_core.networks.checks import require_schedule

    config = {"_class_name": "DDIMScheduler", "beta_schedule": "linear", name: value}
    for refuse in (require_schedule, NoiseSchedule.from_diffusers):
        with pytest.raises(ValueError, match=rf"{name} is .* in scheduler_config.json; it must "):
            refuse(config)


def test_what_diffusers_itself_writes_is_of_the_right_types() -> None:
    from ddim_core.networks.checks import require_schedule

    for name in SAMPLED - {"DPMSolverSDEScheduler"}:
        written = dict(CLASSES[name]().config)
        require_schedule(json.loads(json.dumps(written)) | {"_class_name": name})
    require_schedule({"trained_betas": [0.1, 0.2, 1], "beta_start": 0, "num_train_timesteps": 3})


def test_the_samplers_own_range_and_threshold_are_compared_with_the_configs() -> None:
    schedule = NoiseSchedule.linear(100, 1e-4, 0.02)
    ddim = {"_class_name": "DDIMScheduler", "beta_schedule": "linear", "beta_start": 1e-4,
            "beta_end": 0.02, "num_train_timesteps": 100}  # fmt: skip

    def codes(config: dict[str, Any], **ours: Any) -> dict[str, str]:
        spec = SamplerSpec(steps=10, **ours)
        told = lint(schedule, spec, ddim | config)
        return {f.code: f.message for f in told if f.code.startswith(("clip_", "thresholding"))}

    assert codes({"clip_sample": True}, clip=True) == {}
    wide = codes({"clip_sample": True}, clip=True, clip_range=3.0)
    assert "clips x0 to [-1, 1], and the sampler clips it to [-3, 3]" in wide["clip_range_differs"]
    assert codes({"clip_sample_range": 3.0}, clip=True, clip_range=3.0) == {}
    dynamic = {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 2.0}
    same = {"dynamic_threshold": 0.9, "clip_range": 2.0}
    assert codes(dynamic | {"clip_sample": False}, **same) == {}
    other = codes(dynamic, **same | {"clip_range": 3.0})
    assert "the sampler by its quantile 0.9, at most 3" in other["thresholding_differs"]
    alone = codes({"clip_sample": False}, **same)
    assert "the sampler scales every image's x0 by its quantile" in alone["thresholding_differs"]
    assert "clip_differs" not in alone
    with pytest.raises(ValueError, match="clip_sample is 'False'"):
        codes({"clip_sample": "False"})
