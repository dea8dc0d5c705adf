"""The evidence for a cell, and the lines of plain diffusers, which are run."""

from __future__ import annotations

import json
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ddim_core.decisions.compare import compare
from ddim_core.pipelines.arguments import Setting, plain_call
from ddim_core.pipelines.fitting import halves_of, where_it_asks
from ddim_core.samplers.name import parse_sampler
from ddim_core.samplers.scheduler import scheduler_for, visited
from ddim_core.shipping.evidence import as_json, evidence_of
from ddim_core.shipping.listed import handed, listed_steps
from ddim_core.shipping.readme import Plain, readme
from ddim_core.shipping.script import STABLE_DIFFUSION, BareNetwork
from ddim_core.shipping.snippet import PlainCall, network_snippet, pipeline_snippet
from tests.core.decisions.test_compare import row
from tests.core.pipelines.test_other_families import qwen_conditions, qwen_image
from tests.core.pipelines.tiny import PIPELINES, Tiny, made, opened_of

KNOWN: dict[str, Any] = {
    "steps": 10, "eta": 0.0, "variance": "eta", "sampler": "unipc", "scheduler_config": "{}",
    "nfe": 10, "kid": 0.001, "n_reference": 500, "extractor": "inception-v3", "resize": "tf1",
    "dataset": "emoji", "split": "all", "checkpoint": "faces", "checkpoint_digest": "c" * 64,
    "device": "cpu", "dtype": "float32", "created_at": "2026-11-27T00:00:00+00:00",
}  # fmt: skip
ROWS = [row("a", 3.0, **KNOWN), row("b", 3.2, **KNOWN), row("c", 3.1, **KNOWN),
        row("d", 2.0, **{**KNOWN, "seed": 1})]  # fmt: skip


def test_a_cell_is_compared_with_its_pairs_and_corrected_for_all_of_them() -> None:
    found = evidence_of(ROWS[0], ROWS)
    assert [other.cell for other in found.compared] == ["c" * 8, "b" * 8]  # by FID; d has no pairs
    pairs = compare([(ROWS[0], ROWS[1]), (ROWS[0], ROWS[2]), (ROWS[1], ROWS[2])])
    assert found.compared[1].p_adjusted == pairs[0].p_adjusted
    assert (found.compared[1].difference, found.compared[1].verdict) == (pairs[0].value, "better")
    told = json.loads(as_json(found, {"scheduler": "X"}))
    assert (told["cell"], told["nfe"], told["scheduler"]) == ("a" * 8, 10, "X")
    assert len(told["compared"]) == 2


def test_a_cell_without_pairs_or_intervals_says_so() -> None:
    assert "no other row" in evidence_of(ROWS[3], ROWS).why_none
    few = replace(ROWS[0], fid_leave_one_out=[])
    assert "too few images" in evidence_of(few, [few, *ROWS[1:]]).why_none


def test_the_readme_shows_the_numbers_with_their_protocol() -> None:
    plain = Plain("UniPCMultistepScheduler", "images = 1", "It draws from noise.", ("A note.",))
    text = readme(evidence_of(ROWS[0], ROWS), plain, "/there", 8)
    for wanted in ("```python\nimages = 1\n```", "| FID, 95 % interval | 3.00 [", "1000 generated",
                   "inception-v3", "r" * 12, "c" * 64, "- A note.", "| better |"):  # fmt: skip
        assert wanted in text, wanted


def ran(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(compile(text, "README.md", "exec"), names)
    return names


def run(text: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return ran(text, folder, monkeypatch)["images"]


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
def test_the_lines_for_a_network_of_classes_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guidance: float
) -> None:
    import diffusers

    unet = made(diffusers.UNet2DModel, sample_size=8, in_channels=4, out_channels=4,
                num_class_embeds=4, block_out_channels=(8,), norm_num_groups=4, layers_per_block=1,
                down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",))  # fmt: skip
    PIPELINES["ldm"].make().save_pretrained(tmp_path)
    unet.save_pretrained(tmp_path / "unet")
    diffusers.DDIMScheduler().save_pretrained(tmp_path)
    network = BareNetwork("unet", "UNet2DModel", "vqvae", "VQModel", 3, 3, False, guidance)
    steps = {"timesteps": [900, 500, 0]}
    diffusers.EulerAncestralDiscreteScheduler().save_pretrained(tmp_path)
    text = network_snippet(
        str(tmp_path), network, "EulerAncestralDiscreteScheduler", {"num_inference_steps": 2}, 0.0,
        True, (4, 8, 8),
    )  # fmt: skip
    images = run(text, tmp_path, monkeypatch)
    assert images.shape == (4, 3, 16, 16)
    assert ("said - free" in text) == (guidance == 3.0)
    more = [network_snippet(
        str(tmp_path), replace(network, guided=guided), "EulerAncestralDiscreteScheduler",
        {"num_inference_steps": 2}, 0.0, True, (4, 8, 8),
    ) for guided in ((True, True), (True, False))]  # fmt: skip
    assert run(more[0], tmp_path, monkeypatch).allclose(images, atol=1e-5)
    assert run(more[1], tmp_path, monkeypatch).allclose(images, atol=1e-5) == (guidance == 1.0)
    text = network_snippet(str(tmp_path), network, "DDPMScheduler", steps, 0.0, True, (4, 8, 8))
    assert "set_timesteps(timesteps=[900, 500, 0])" in text


@pytest.mark.parametrize(
    ("family", "text", "eta", "told"),
    [
        ("dit", "dpmpp_2m?timesteps=[999,500]", 0.0, {"class_labels": "[0, 1]"}),
        ("dit", "ddim", 0.5, {"class_labels": "[0, 1]"}),
        ("flux", "flow_euler?sigmas=[1.0,0.7]", 0.0, {}),
        ("sd3", "unipc?sigmas=[0.9,0.4]", 0.0, {}),
        ("sana", "unipc?sigmas=[0.9,0.4]", 0.0, {}),
        ("qwen_image", "unipc?sigmas=[0.9,0.4]", 0.0, {}),  # whose call hands on sigmas of its own
        ("sdxl", "euler?sigmas=[10.0,2.0]", 0.0, {}),
    ],
)
def test_the_lines_for_a_pipeline_visit_the_noise_levels_that_were_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, text: str, eta: float,
    told: dict[str, str],
) -> None:  # fmt: skip
    monkeypatch.setitem(PIPELINES, "qwen_image", Tiny(qwen_image, qwen_conditions, 4.0, 16, ()))
    opened, tiny = opened_of(family, tmp_path), PIPELINES[family]
    setting = Setting(parse_sampler(text), 2, tiny.guidance, eta)
    scheduler = scheduler_for(setting.sampler, opened.scheduler)
    kind = type(scheduler).__name__
    scheduler.save_pretrained(tmp_path)
    save_file(encoded := tiny.conditions([0]), tmp_path / "conditions.safetensors")
    listed = listed_steps(setting.sampler, kind)
    flow_sigmas = bool(scheduler.config.get("use_flow_sigmas"))
    plain = plain_call(opened.takes, setting, opened.size, encoded)
    call, left = handed(plain, listed, flow_sigmas)
    told = told or {name: f'told["{name}"][:1]' for name in tiny.conditions([0])}
    parts = opened.pipeline.components
    absent = [
        n for n in parts if parts[n] is None and n not in opened.pipeline._optional_components
    ]
    by_step = eta if family == "dit" else 0.0
    lines = pipeline_snippet(
        PlainCall(
            str(tmp_path / family), opened.name, kind, tuple(absent), call, left, by_step,
            "float32", told,
        )
    )  # fmt: skip
    with torch.inference_mode():
        names = ran(lines, tmp_path, monkeypatch)
    assert len(names["images"]) == (2 if family == "dit" else 1)
    assert visited(names["pipe"].scheduler) == where_it_asks(opened, setting)
    assert ("functools.partial" in lines) == (eta > 0.0)
    assert ("set_steps(" in lines) == bool(left)


def test_the_lines_leave_guidance_out_at_some_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, tiny = opened_of("sd15", tmp_path), PIPELINES["sd15"]
    save_file(tiny.conditions([0]), tmp_path / "conditions.safetensors")
    opened.pipeline.scheduler.save_pretrained(tmp_path)
    asked, halves = Setting(parse_sampler("ddim"), 3, 30.0), halves_of(opened, (0.0, 1.0))
    assert (halves.doubled, halves.prompts_last) == astuple(STABLE_DIFFUSION)[:2]
    plain = PlainCall(
        str(tmp_path / "sd15"), opened.name, "DDIMScheduler", ("text_encoder", "tokenizer"),
        {**plain_call(opened.takes, asked, opened.size), "output_type": "np"}, {}, 0.0, "float32",
        {name: f'told["{name}"][:1]' for name in tiny.conditions([0])},
    )  # fmt: skip

    def drawn(guided: tuple[bool, ...], guidance: float = 30.0) -> torch.Tensor:
        call = {**plain.call, "guidance_scale": guidance}
        how = {"guided": guided, "asked": STABLE_DIFFUSION} if guided else {}
        lines = pipeline_snippet(replace(plain, call=call, **how))
        assert lines.count("guide_at_some_steps") == 2 * bool(guided)
        with torch.inference_mode():
            return torch.from_numpy(run(lines, tmp_path, monkeypatch))

    assert drawn((True,) * 3).equal(drawn(()))
    assert drawn((False,) * 3).equal(drawn((), 1.0))
    half = drawn((True, False, False))
    assert not half.allclose(drawn(()), atol=0.01)
    assert not half.allclose(drawn((), 1.0), atol=0.01)


def test_the_lines_lay_loras_over_a_pipeline_as_much_as_they_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, tiny = opened_of("sdxl", tmp_path), PIPELINES["sdxl"]
    place = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v"
    out, into = opened.pipeline.unet.get_submodule(place.removeprefix("unet.")).weight.shape
    down, up = torch.ones(2, into), torch.full((out, 2), 0.5)
    save_file(
        {f"{place}.lora_A.weight": down, f"{place}.lora_B.weight": up}, tmp_path / "a.safetensors"
    )
    save_file(tiny.conditions([0]), tmp_path / "conditions.safetensors")
    scheduler = scheduler_for(parse_sampler("euler"), opened.scheduler)
    scheduler.save_pretrained(tmp_path)
    told = {name: f'told["{name}"][:1]' for name in tiny.conditions([0])}
    call = {**plain_call(opened.takes, Setting(parse_sampler("euler"), 2), opened.size),
            "output_type": "np"}  # fmt: skip
    plain = PlainCall(
        str(tmp_path / "sdxl"), opened.name, type(scheduler).__name__,
        ("tokenizer", "tokenizer_2"), call, {}, 0.0, "float32", told,
    )  # fmt: skip
    drawn = []
    for loras in ((), (("a.safetensors", 0.0),), (("a.safetensors", 1.0),)):
        lines = pipeline_snippet(replace(plain, loras=loras))
        assert lines.count("load_lora_weights") == len(loras)
        with torch.inference_mode():
            drawn.append(torch.from_numpy(run(lines, tmp_path, monkeypatch)))
    assert drawn[0].allclose(drawn[1], atol=1e-6)
    assert not drawn[0].allclose(drawn[2], atol=1e-3)
