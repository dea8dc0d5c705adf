"""Prompts encoded once: as the pipeline itself encodes them, by the names that its call takes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import T5Config, T5EncoderModel, T5TokenizerFast

import ddim_core.pipelines.prompts as prompts_module
from ddim_core.diffusion.noise import ImageNoise
from ddim_core.pipelines.arguments import Setting
from ddim_core.pipelines.drawing import draw
from ddim_core.pipelines.opening import OpenedPipeline, open_pipeline
from ddim_core.pipelines.prompts import _stacked, encode_prompts
from ddim_core.pipelines.stage import own_copy
from ddim_core.samplers.name import parse_sampler
from ddim_core.samplers.scheduler import scheduler_for
from ddim_core.text2image.embedded import embedded_base
from ddim_core.text2image.small_base import caption_tokenizer, new_pipeline, save_base
from ddim_core.text2image.specs import BaseSpec
from tests.core.pipelines import tiny

PROMPTS = ["a red ball", "a blue box on the grass", "a ball"]
SMALL = BaseSpec(resolution=8, widths=(8, 16), text_width=16, text_layers=1, heads=2, max_tokens=7)


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> OpenedPipeline:
    folder = tmp_path_factory.mktemp("prompts") / "sd15"
    save_base(new_pipeline(SMALL, PROMPTS), folder)
    return open_pipeline(folder)


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> OpenedPipeline:
    """Two encoders, with a vocabulary that is too large for their tables cut to it."""
    pipeline: Any = tiny.sdxl()
    tokenizer = caption_tokenizer(PROMPTS, 600, tiny.TOKENS)
    pipeline.register_modules(tokenizer=tokenizer, tokenizer_2=tokenizer)
    for encoder in (pipeline.text_encoder, pipeline.text_encoder_2):
        encoder.resize_token_embeddings(len(tokenizer))
        encoder.config.eos_token_id = tokenizer.eos_token_id
    pipeline.text_encoder.config.hidden_size = tiny.WIDTH
    folder = tmp_path_factory.mktemp("prompts") / "sdxl"
    pipeline.save_pretrained(folder)
    return open_pipeline(folder)


def test_prompts_are_encoded_as_the_pipeline_encodes_them(sd15: OpenedPipeline) -> None:
    assert sd15.encodes
    encoded = encode_prompts(sd15, PROMPTS)
    assert set(encoded) == {"prompt_embeds", "negative_prompt_embeds"}
    assert encoded["prompt_embeds"].shape == (3, 7, 16)
    with torch.no_grad():
        theirs, negative = sd15.pipeline.encode_prompt(PROMPTS, "cpu", 1, True)
    # One at a time and in a batch of three: float32 rounding.
    torch.testing.assert_close(encoded["prompt_embeds"], theirs, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoded["negative_prompt_embeds"], negative[:1])


def test_what_a_prompt_is_encoded_to_does_not_depend_on_its_neighbours(
    sd15: OpenedPipeline,
) -> None:
    alone, whole = encode_prompts(sd15, PROMPTS[2:]), encode_prompts(sd15, PROMPTS)
    assert torch.equal(alone["prompt_embeds"][0], whole["prompt_embeds"][2])
    first = encode_prompts(sd15, PROMPTS, n=2)
    assert torch.equal(first["prompt_embeds"], whole["prompt_embeds"][:2])
    assert torch.equal(first["negative_prompt_embeds"], whole["negative_prompt_embeds"])


def test_prompts_are_encoded_side_by_side_to_what_they_are_alone() -> None:
    opened = open_pipeline(embedded_base())
    prompts = (embedded_base() / "prompts.txt").read_text().splitlines()[:40]
    parts = [prompts[i::4] for i in range(4)] * 3
    alone = [encode_prompts(opened, part) for part in parts[:4]] * 3
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda part: encode_prompts(opened, part), parts))
    for mine, theirs in zip(found, alone, strict=True):
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_a_negative_prompt_is_encoded_in_place_of_the_empty_one(sd15: OpenedPipeline) -> None:
    empty, other = (encode_prompts(sd15, PROMPTS[:1], negative) for negative in ("", "a ball"))
    assert not torch.equal(empty["negative_prompt_embeds"], other["negative_prompt_embeds"])
    assert torch.equal(
        other["negative_prompt_embeds"], encode_prompts(sd15, ["a ball"])["prompt_embeds"]
    )


def test_images_for_encoded_prompts_are_those_for_the_prompts(
    sd15: OpenedPipeline, tmp_path: Path
) -> None:
    save_file(encode_prompts(sd15, PROMPTS), tmp_path / "prompts.safetensors")
    encoded = load_file(tmp_path / "prompts.safetensors")
    asked = Setting(parse_sampler("own"), 2, guidance=3.0)
    mine = draw(sd15, asked, [0, 1, 2], encoded, 3).images
    theirs = sd15.pipeline(
        prompt=PROMPTS, latents=ImageNoise(0, [0, 1, 2], sd15.shape).x_T(), guidance_scale=3.0,
        num_inference_steps=2, output_type="np",
    ).images  # fmt: skip
    assert np.abs(mine.astype(int) - np.rint(theirs * 255)).max() <= 1


def test_prompts_are_encoded_and_drawn_in_half_precision_too(tmp_path: Path) -> None:
    save_base(new_pipeline(SMALL, PROMPTS), tmp_path / "sd15")
    opened = open_pipeline(tmp_path / "sd15", "float16")
    encoded = encode_prompts(opened, PROMPTS)
    assert encoded["prompt_embeds"].dtype == torch.float16
    images = draw(opened, Setting(parse_sampler("own"), 2, 3.0), [0, 1, 2], encoded, 3).images
    assert images.std() > 10.0


def test_sdxl_gives_both_encoders_and_what_it_takes_for_no_negative_prompt(
    sdxl: OpenedPipeline,
) -> None:
    encoded = encode_prompts(sdxl, PROMPTS[:2])
    assert {name: tuple(value.shape) for name, value in encoded.items()} == {
        "prompt_embeds": (2, 7, 32),
        "pooled_prompt_embeds": (2, 16),
        "negative_prompt_embeds": (1, 7, 32),
        "negative_pooled_prompt_embeds": (1, 16),
    }
    assert not encoded["negative_prompt_embeds"].any()  # force_zeros_for_empty_prompt
    assert encode_prompts(sdxl, PROMPTS[:1], "a ball")["negative_prompt_embeds"].any()


def test_a_text_encoder_that_lacks_a_weight_is_refused(tmp_path: Path) -> None:
    """Transformers would make it up, anew in each run."""
    save_base(new_pipeline(SMALL, PROMPTS), tmp_path / "sd15")
    file = tmp_path / "sd15" / "text_encoder" / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if "q_proj" in name)
    del weights[name]
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ValueError, match="its text_encoder lacks 1 weights"):
        open_pipeline(tmp_path / "sd15")


def t5_tokenizer() -> Any:
    learner = Tokenizer(models.Unigram())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    learner.train_from_iterator(
        PROMPTS,
        trainers.UnigramTrainer(
            vocab_size=60, special_tokens=special, unk_token="<unk>", show_progress=False
        ),
    )
    vocabulary = [(token, score) for token, score in json.loads(learner.to_str())["model"]["vocab"]]
    return T5TokenizerFast(vocab=vocabulary, extra_ids=0, model_max_length=12)


def test_what_has_masks_is_encoded_with_them_and_drawn_as_for_the_prompts(tmp_path: Path) -> None:
    pipeline = tiny.pixart()
    config = T5Config(vocab_size=60, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    pipeline.register_modules(
        tokenizer=t5_tokenizer(), text_encoder=tiny.made(T5EncoderModel, config=config)
    )
    pipeline.save_pretrained(tmp_path / "pixart")
    opened = open_pipeline(tmp_path / "pixart")
    encoded = encode_prompts(opened, PROMPTS)
    assert encoded["prompt_attention_mask"].shape == (3, 300)
    assert len(set(encoded["prompt_attention_mask"].sum(1).tolist())) == 3
    assert len(encode_prompts(opened, PROMPTS, n=1)["prompt_attention_mask"]) == 3  # to one length
    asked = Setting(parse_sampler("ddim"), 2, guidance=3.0)
    mine = draw(opened, asked, [0, 1, 2], encoded, 3).images
    plainly = own_copy(opened.pipeline, scheduler_for(asked.sampler, opened.scheduler))
    theirs = plainly(
        PROMPTS, latents=ImageNoise(0, [0, 1, 2], opened.shape).x_T(), guidance_scale=3.0,
        num_inference_steps=2, use_resolution_binning=False, clean_caption=False, output_type="np",
    ).images  # fmt: skip
    assert np.abs(mine.astype(int) - np.rint(theirs * 255)).max() <= 1


def test_prompts_of_unequal_length_are_filled_up_where_there_are_masks() -> None:
    def row(n: int) -> dict[str, torch.Tensor]:
        return {
            "prompt_embeds": torch.ones(1, n, 4),
            "prompt_embeds_mask": torch.ones(1, n, dtype=torch.int64),
            "pooled_prompt_embeds": torch.ones(1, 3),
        }

    negative = {f"negative_{name}": value for name, value in row(2).items()}
    stacked = _stacked("X", [row(3), row(5)], negative)
    assert stacked["prompt_embeds"].shape == (2, 6, 4)  # no row without a hole: none is maskless
    assert stacked["prompt_embeds_mask"].sum(1).tolist() == [3, 5]
    assert stacked["pooled_prompt_embeds"].shape == (2, 3)
    assert stacked["negative_prompt_embeds"].shape == (1, 6, 4)
    with pytest.raises(ValueError, match="unequal lengths and takes no masks"):
        _stacked("X", [{"prompt_embeds": torch.ones(1, n, 4)} for n in (2, 3)], {})


def test_prompts_are_refused_where_they_cannot_be_encoded(folder: Path) -> None:
    with pytest.raises(ValueError, match="DDPMPipeline takes no prompts; it is unconditional"):
        encode_prompts(tiny.opened_of("ddpm", folder), PROMPTS)
    with pytest.raises(ValueError, match=r"has no text encoders here; give .* prompt_embeds, "):
        encode_prompts(tiny.opened_of("sd3", folder), PROMPTS)


def test_prompts_of_a_card_are_encoded_in_batches_to_the_same(
    sd15: OpenedPipeline, sdxl: OpenedPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all have one length; with one of their own, one by one."""
    asked: list[int] = []
    plain = prompts_module._encoded

    def counted(opened: OpenedPipeline, some: Any, *more: Any, **told: Any) -> Any:
        asked.append(len(some))
        return plain(opened, some, *more, **told)

    monkeypatch.setattr(prompts_module, "_encoded", counted)
    monkeypatch.setattr(prompts_module, "ON_CARD", 4)
    for opened in (sd15, sdxl):
        one_by_one = encode_prompts(opened, PROMPTS * 2)
        asked.clear()
        at_once = encode_prompts(replace(opened, on_card=True), PROMPTS * 2)
        assert asked[-2:] == [4, 4]
        assert at_once.keys() == one_by_one.keys()
        for name, rows in one_by_one.items():
            torch.testing.assert_close(at_once[name], rows, atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(prompts_module, "_of_one_length", lambda opened, first: False)
    asked.clear()
    encode_prompts(replace(sd15, on_card=True), PROMPTS)
    assert asked == [1, 1, 1]
