"""Pipelines opened from folders: what is known of them, and what is refused in a sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from ddim_core.pipelines.arguments import Setting
from ddim_core.pipelines.drawing import draw
from ddim_core.pipelines.fitting import drafted, sized
from ddim_core.pipelines.opening import open_pipeline, require_size
from ddim_core.pipelines.takes import what_it_takes
from ddim_core.samplers.name import parse_sampler
from tests.core.pipelines import tiny
from tests.core.pipelines.tiny import PIPELINES, opened_of


@pytest.fixture
def sd15(folder: Path) -> Path:
    tiny.opened_of("sd15", folder)
    return folder / "sd15"


@pytest.fixture
def mine(sd15: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(sd15, tmp_path / "sd15"))


def changed(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_what_is_known_of_a_text_to_image_pipeline(sd15: Path) -> None:
    opened = open_pipeline(sd15)
    assert (opened.name, opened.takes.modality) == ("StableDiffusionPipeline", "text-to-image")
    assert (opened.takes.guidance, opened.takes.guidance_name) == ("real", "guidance_scale")
    assert (opened.height, opened.width, opened.channels) == (16, 16, 3)
    assert opened.shape == (4, 8, 8)
    assert opened.hands_streams
    assert not opened.encodes
    assert opened.n_classes is None
    assert opened.scheduler["_class_name"] == "DDIMScheduler"
    assert opened.takes.conditions == ("prompt_embeds", "negative_prompt_embeds")
    assert not any(p.requires_grad for p in opened.pipeline.unet.parameters())
    assert not opened.pipeline.unet.training


@pytest.mark.parametrize(
    ("name", "shape", "guidance", "hands", "classes"),
    [
        ("ddpm", (3, 8, 8), "none", True, None),
        ("ldm", (4, 8, 8), "none", False, None),
        ("dit", (4, 8, 8), "real", False, 1000),
        ("lcm", (4, 8, 8), "embedded", True, None),
        ("flux", (16, 16), "embedded", False, None),  # packed
        ("sd3", (4, 8, 8), "real", False, None),
        ("sana", (4, 16, 16), "real", True, None),
    ],
)
def test_what_is_known_of_the_families(
    name: str,
    shape: tuple[int, ...],
    guidance: str,
    hands: bool,
    classes: int | None,
    folder: Path,
) -> None:
    opened = tiny.opened_of(name, folder)
    assert opened.shape == shape
    assert (opened.takes.guidance, opened.hands_streams) == (guidance, hands)
    assert opened.n_classes == classes
    side = {"ddpm": 8, "sana": 32}.get(name, 16)
    assert (opened.height, opened.width) == (side, side)


def test_flux_without_guidance_in_its_network_takes_none() -> None:
    assert what_it_takes(tiny.flux(told_guidance=False)).guidance == "none"
    assert what_it_takes(tiny.flux()).guidance == "embedded"


def test_half_precision_and_a_resolution_of_ones_own(sd15: Path) -> None:
    opened = open_pipeline(sd15, "bfloat16", resolution=24)
    assert opened.pipeline.unet.dtype == opened.pipeline.vae.dtype == torch.bfloat16
    assert opened.latent_dtype == torch.bfloat16
    assert (opened.height, opened.shape) == (24, (4, 12, 12))
    with pytest.raises(ValueError, match=r"multiples of 8 pixels; give 32 or 40"):
        open_pipeline(sd15, resolution=33)
    with pytest.raises(ValueError, match=r"dtype is 'float64' .did you mean float16"):
        open_pipeline(sd15, "float64")


@pytest.mark.parametrize(
    ("name", "step"), [("sd15", 8), ("sd3", 4), ("flux", 4), ("pixart_sigma", 8), ("sana", 32)]
)
def test_another_size_is_drawn_where_the_call_draws_just_that(
    name: str, step: int, folder: Path
) -> None:
    """Flux's call draws a smaller picture than it is asked for, and only logs it."""
    opened = opened_of(name, folder)
    side = opened.height + step
    other = sized(opened, side)
    asked = Setting(parse_sampler("own"), 2, 1.0)
    drawn = draw(other, asked, [0], PIPELINES[name].conditions([0]), 1)
    assert drawn.images.shape == (1, side, side, 3)
    draft = drafted(folder / name)
    for which in (other.pipeline, draft):
        with pytest.raises(ValueError, match=rf"draws multiples of {step} pixels; give {side}"):
            require_size(which, opened.takes, side + 1)
    assert sized(other, opened.height).shape == opened.shape


def test_a_call_without_a_size_draws_one_only(folder: Path) -> None:
    with pytest.raises(ValueError, match="resolution is 64, and a DiTPipeline draws one size only"):
        sized(opened_of("dit", folder), 64)


def test_what_the_class_changes_of_its_scheduler_is_known(tmp_path: Path) -> None:
    """Plain diffusers draws with steps_offset 1 where the file of an old SD says 0, or nothing."""
    with pytest.warns(FutureWarning, match="steps_offset"):
        old = tiny.sd15(diffusers.DDIMScheduler(**{**tiny.STEPS, "steps_offset": 0}))
    old.save_pretrained(tmp_path / "old")
    path = tmp_path / "old" / "scheduler" / "scheduler_config.json"
    changed(path, lambda told: told.update(steps_offset=0))
    opened = open_pipeline(tmp_path / "old")
    assert opened.scheduler["steps_offset"] == 1
    assert any("sets steps_offset of its scheduler to 1" in note for note in opened.notes)


def test_a_safety_checker_is_left_out_and_said(mine: Path) -> None:
    changed(
        mine / "model_index.json",
        lambda told: told.update(
            safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
            feature_extractor=["transformers", "CLIPImageProcessor"],
            requires_safety_checker=True,
        ),
    )
    opened = open_pipeline(mine)
    assert opened.pipeline.safety_checker is None
    assert opened.notes[0].startswith("the safety checker is left out")


def test_weights_of_one_variant_alone_are_opened(mine: Path) -> None:
    for part in ("unet", "vae"):
        file = mine / part / "diffusion_pytorch_model.safetensors"
        file.rename(file.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert open_pipeline(mine, "float16").pipeline.unet.dtype == torch.float16


class TestRefusals:
    def test_what_is_no_pipeline(self, tmp_path: Path, sd15: Path) -> None:
        with pytest.raises(ValueError, match="there is no pipeline"):
            open_pipeline(tmp_path / "nowhere")
        with pytest.raises(ValueError, match=r"must be a folder with model_index.json"):
            open_pipeline(sd15 / "unet")

    @pytest.mark.parametrize(
        "named", ["MyPipeline", ["pipeline", "Mine"], "UNet2DModel", None, "torch", "NoPipeline"]
    )
    def test_a_class_that_diffusers_does_not_have(self, named: object, mine: Path) -> None:
        changed(mine / "model_index.json", lambda told: told.update(_class_name=named))
        with pytest.raises(ValueError, match="it must be a pipeline that diffusers"):
            open_pipeline(mine)

    @pytest.mark.parametrize(
        "named",
        [["unet", "Mine"], ["os", "system"], ["diffusers", "DiffusionPipeline"], ["diffusers"]],
    )
    def test_a_part_of_a_class_that_is_not_known(self, named: list[str], mine: Path) -> None:
        (mine / "unet" / "unet.py").write_text("raise SystemExit('code of the folder was run')\n")
        changed(mine / "model_index.json", lambda told: told.update(unet=named))
        with pytest.raises(ValueError, match="as its unet; it must be a class of diffusers or"):
            open_pipeline(mine)

    def test_a_guider(self, mine: Path) -> None:
        guider = ["diffusers", "ClassifierFreeGuidance"]
        changed(mine / "model_index.json", lambda told: told.update(unet=guider))
        with pytest.raises(ValueError, match="which is neither a network nor a scheduler"):
            open_pipeline(mine)

    def test_a_missing_part(self, mine: Path) -> None:
        shutil.rmtree(mine / "vae")
        with pytest.raises(ValueError, match=r"lacks its vae; model_index.json names a Autoenc"):
            open_pipeline(mine)
        changed(mine / "model_index.json", lambda told: told.update(vae=[None, None]))
        with pytest.raises(ValueError, match="a StableDiffusionPipeline lacks its vae"):
            open_pipeline(mine)
        changed(mine / "model_index.json", lambda told: told.pop("scheduler"))
        with pytest.raises(ValueError, match=r"lacks its (vae|scheduler)"):
            open_pipeline(mine)

    @pytest.mark.parametrize("file", ["unet/config.json", "scheduler/scheduler_config.json"])
    def test_a_missing_configuration(self, file: str, mine: Path) -> None:
        (mine / file).unlink()
        with pytest.raises(ValueError, match=f"{file} is missing"):
            open_pipeline(mine)

    def test_pickled_weights_and_none(self, mine: Path) -> None:
        file = mine / "unet" / "diffusion_pytorch_model.safetensors"
        file.rename(file.with_suffix(".bin"))
        with pytest.raises(ValueError, match="unet holds its weights as a pickle"):
            open_pipeline(mine)
        file.with_suffix(".bin").unlink()
        with pytest.raises(ValueError, match="unet holds no weights"):
            open_pipeline(mine)

    def test_a_missing_weight(self, mine: Path) -> None:
        file = mine / "unet" / "diffusion_pytorch_model.safetensors"
        weights = load_file(file)
        del weights["conv_out.weight"]
        save_file(weights, file, {"format": "pt"})
        with pytest.raises(ValueError, match="conv_out"):
            open_pipeline(mine)

    def test_a_configuration_that_asks_for_more_than_its_weights(self, mine: Path) -> None:
        changed(mine / "unet" / "config.json", lambda told: told.update(cross_attention_dim=9999))
        with pytest.raises(ValueError, match="the configuration of unet asks for"):
            open_pipeline(mine)

    def test_code_in_a_configuration(self, mine: Path) -> None:
        changed(mine / "unet" / "config.json", lambda told: told.update(auto_map={"A": "b.C"}))
        with pytest.raises(ValueError, match="auto_map is set in unet; no other code"):
            open_pipeline(mine)

    @pytest.mark.parametrize(
        ("kind", "words"),
        [
            ("StableDiffusionInpaintPipeline", "starts from an image or another input"),
            ("StableDiffusionImg2ImgPipeline", "starts from an image or another input .strength"),
            ("FluxControlNetPipeline", "another input"),
            ("QwenImageEditPipeline", "starts from an image"),
            ("KandinskyV22CombinedPipeline", "is made of two pipelines; give the folder"),
            ("LTXPipeline", "makes video"),
            ("WanPipeline", "makes video"),
            ("AudioLDM2Pipeline", "makes sound"),
            ("StableVideoDiffusionPipeline", "makes video"),
        ],
    )
    def test_another_modality(self, kind: str, words: str, mine: Path) -> None:
        changed(mine / "model_index.json", lambda told: told.update(_class_name=kind))
        with pytest.raises(ValueError, match=words):
            open_pipeline(mine)


@pytest.mark.parametrize(("family", "part"), [("sdxl", "unet"), ("sd3", "transformer")])
def test_a_size_that_is_not_told_is_asked_for(
    folder: Path, tmp_path: Path, family: str, part: str
) -> None:
    tiny.opened_of(family, folder)
    mine = Path(shutil.copytree(folder / family, tmp_path / family))
    changed(mine / part / "config.json", lambda told: told.update(sample_size=None))
    with pytest.raises(ValueError, match=f"sample_size is null in {part}/config.json.*whole numb"):
        open_pipeline(mine)
