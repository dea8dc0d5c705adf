"""Sizes and cuts of images, latents, batches, and words that a tokenizer does not know."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import HeunDiscreteScheduler, StableDiffusionPipeline

from ddim_core.lora.latents import bucket_sizes, encode_latents, nearest_size
from ddim_core.lora.specs import LatentSpec, LoraSpec
from ddim_core.lora.texts import embed_prompts, unknown_words, unknown_words_warning
from ddim_core.lora.training.batches import EMPTY_PROMPT, Group, draws
from ddim_core.networks.text_length import length_warning
from ddim_core.text2image.base_folder import (
    load_noise_scheduler,
    load_pipeline,
    load_tokenizers,
    locate_base,
    own_resolution,
    size_step,
)
from ddim_core.text2image.pictures import pictures
from tests.lora.material import STEP, noise_pictures, small_job
from tests.lora.tiny_base import MAX_TOKENS


def test_buckets_have_at_most_the_squares_area_and_sides_that_fit() -> None:
    sizes = bucket_sizes(LatentSpec(resolution=512, buckets=True), 64)
    assert sizes[0] == (512, 512)
    assert (384, 640) in sizes
    assert (640, 384) in sizes
    assert len(set(sizes)) == len(sizes)
    for width, height in sizes:
        assert width % 64 == height % 64 == 0
        assert 0.7 * 512**2 < width * height <= 512**2
        assert max(width / height, height / width) <= 2.0


def test_an_image_goes_to_the_bucket_of_its_shape() -> None:
    sizes = bucket_sizes(LatentSpec(resolution=512, buckets=True), 64)
    assert nearest_size((1000, 1000), sizes) == (512, 512)
    assert nearest_size((1600, 1000), sizes) == (640, 384)
    assert nearest_size((1000, 1600), sizes) == (384, 640)


def test_a_resolution_that_does_not_fit_the_base_is_named_with_those_that_do(base: Path) -> None:
    assert size_step(base) == STEP
    assert own_resolution(base) == 16
    with pytest.raises(ValueError, match="resolution is 18; this base needs a multiple of 4: 16"):
        encode_latents(base, noise_pictures(1), LatentSpec(resolution=18), STEP)


def test_a_mirrored_variant_is_the_latent_of_the_mirrored_image(base: Path) -> None:
    item = noise_pictures(1)
    plain = encode_latents(base, item, LatentSpec(resolution=16), STEP)["moments/000000"]
    both = encode_latents(base, item, LatentSpec(resolution=16, flip=True), STEP)["moments/000000"]
    assert np.array_equal(both[0], plain[0])
    assert not np.array_equal(both[1], plain[0])


def test_random_cuts_differ_and_follow_from_the_seed(base: Path) -> None:
    items = noise_pictures(3)[2:]  # the tallest, which can be cut in several places
    spec = LatentSpec(resolution=16, crops=4, seed=3)
    first = encode_latents(base, items, spec, STEP)
    again = encode_latents(base, items, spec, STEP)
    assert np.array_equal(first["moments/000000"], again["moments/000000"])
    tops = first["sizes/000000"][:, 2]
    assert len(set(tops.tolist())) > 1
    assert tops.max() <= 28 * 16 / 24 - 16


def test_embeddings_are_those_of_the_pipeline(base: Path) -> None:
    prompts = ["a photo of sks cat", ""]
    ours = torch.from_numpy(embed_prompts(base, prompts)["states"])
    pipeline = StableDiffusionPipeline.from_pretrained(base, safety_checker=None)
    for i, prompt in enumerate(prompts):
        theirs, _ = pipeline.encode_prompt(prompt, "cpu", 1, do_classifier_free_guidance=False)
        assert torch.equal(ours[i : i + 1], theirs)


def batches(spec: LoraSpec, base: Path, n: int) -> list[list[Group]]:
    job = small_job(base, spec, with_class=True)
    images, class_images = job.images()
    draw = draws(spec, images, class_images, 1000)
    return [draw(k) for k in range(n)]


def test_each_epoch_shows_every_image_once_in_batches_of_one_size(base: Path) -> None:
    spec = LoraSpec(batch_size=2)
    images, _ = small_job(base, spec).images()
    draw = draws(spec, images, None, 1000)
    n_batches = 3  # six pictures of three shapes, two of each
    known = {moments[v].numpy().tobytes(): i for i, moments in enumerate(images.moments)
             for v in range(len(moments))}  # fmt: skip
    orders = []
    for epoch in range(4):
        groups = [g for k in range(n_batches) for g in draw(epoch * n_batches + k)]
        rows = [known[m.numpy().tobytes()] for g in groups for m in g.moments]
        assert sorted(rows) == list(range(6))
        orders.append(rows)
    assert len({tuple(rows) for rows in orders}) > 1


def test_weights_of_a_forward_sum_to_one_and_the_prior_weight(base: Path) -> None:
    for groups in batches(LoraSpec(batch_size=2, prior_weight=0.5), base, 4):
        assert sum(float(g.weights.sum()) for g in groups) == pytest.approx(1.5)
        assert sum(len(g.timesteps) for g in groups) == 4


def test_a_step_is_a_function_of_seed_and_step_alone(base: Path) -> None:
    spec = LoraSpec(batch_size=2, seed=5)
    job = small_job(base, spec)
    images, _ = job.images()
    later = draws(spec, images, None, 1000)(7)
    for a, b in zip(draws(spec, images, None, 1000)(7), later, strict=True):
        assert torch.equal(a.noise, b.noise)
        assert torch.equal(a.timesteps, b.timesteps)
    other = draws(LoraSpec(batch_size=2, seed=6), images, None, 1000)(7)
    assert not torch.equal(other[0].noise[:1], later[0].noise[:1])


def test_captions_are_dropped_at_the_asked_share(base: Path) -> None:
    groups = [
        g for k in batches(LoraSpec(batch_size=2, caption_dropout=0.25), base, 200) for g in k
    ]
    dropped = torch.cat([g.prompts == EMPTY_PROMPT for g in groups]).float().mean()
    assert abs(float(dropped) - 0.25) < 5 * (0.25 * 0.75 / 800) ** 0.5  # five standard errors


def test_processes_share_a_batch_without_overlap(base: Path) -> None:
    (group, *_) = batches(LoraSpec(batch_size=2), base, 1)[0]
    parts = [group.share(rank, 2) for rank in range(2)]
    assert sum(float(p.weights.sum()) for p in parts) == pytest.approx(float(group.weights.sum()))
    spare = group.share(7, 8)  # more processes than images: one takes part without weight
    assert float(spare.weights.sum()) == 0.0


def test_words_unknown_to_the_tokenizer_are_said_with_what_becomes_of_them(base: Path) -> None:
    tokenizer = load_tokenizers(base)[0]
    assert unknown_words(tokenizer, ["a photo of sks cat", "a dog, red."]) == {}
    assert unknown_words_warning(tokenizer, ["a photo of sks cat"]) is None
    warning = unknown_words_warning(tokenizer, ["a photo of zwx cat", "a red zwx, a dog"])
    assert warning is not None
    assert warning.count("'zwx' becomes z + w + x</w>") == 1
    assert "cat" not in warning


@pytest.mark.parametrize(
    ("name", "said"),
    [("/no/such", "there is no folder '/no/such'"), ("someone/some-model", "cannot be fetched")],
)
def test_a_base_that_is_not_there_is_named(
    name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=said):
        locate_base(name)


def test_a_folder_that_is_no_stable_diffusion_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no model_index\.json"):
        locate_base(str(tmp_path))
    (tmp_path / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')
    with pytest.raises(ValueError, match="is a DDPMPipeline; a base must be one of"):
        locate_base(str(tmp_path))


def test_a_base_whose_scheduler_is_silent_on_its_betas_is_trained_on_its_classs(
    base: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(base, tmp_path / "base")
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "scheduler" / "scheduler_config.json").write_text("{}")
    index["scheduler"] = ["diffusers", "HeunDiscreteScheduler"]
    (copy / "model_index.json").write_text(json.dumps(index))
    expected = HeunDiscreteScheduler().alphas_cumprod
    assert torch.equal(load_noise_scheduler(copy).alphas_cumprod, expected)
    index["scheduler"] = ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    (copy / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler, has no betas"):
        load_noise_scheduler(copy)


@pytest.mark.parametrize("length", [None, 0, 10**30, 77])
def test_a_tokenizer_without_a_length_takes_its_encoders(
    length: int | None, base: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(base, tmp_path / "base")
    place = copy / "tokenizer" / "tokenizer_config.json"
    told = json.loads(place.read_text())
    told.pop("model_max_length")
    place.write_text(json.dumps(told if length == 10**30 else told | {"model_max_length": length}))
    (tokenizer,) = load_tokenizers(copy)
    assert tokenizer.model_max_length == MAX_TOKENS
    long = "a photo of sks cat " * 9
    for name, numbers in embed_prompts(copy, [long]).items():
        assert np.array_equal(numbers, embed_prompts(base, [long])[name])
    drawn = pictures(load_pipeline(copy), [long], [0], 2, batch_size=1)
    assert np.array_equal(drawn, pictures(load_pipeline(base), [long], [0], 2, batch_size=1))
    warning = length_warning([tokenizer], [long, long, "cat", long + "dog"])
    assert warning is not None
    assert warning.startswith("2 of 3 captions or prompts are longer than the 8 tokens")
    assert length_warning([tokenizer], ["a cat"]) is None
