"""The loop on tiny bases of SD3 and Flux: flows, three kinds of texts, packed latents."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, FluxPipeline
from safetensors.torch import load_file

from ddim_core.lora.adapters import attach, trainable
from ddim_core.lora.data import write_captioned
from ddim_core.lora.export import has_kohya, save_diffusers
from ddim_core.lora.pipeline import PICTURE, pipeline_with, portrait
from ddim_core.lora.recipes import Shown, recipe_of
from ddim_core.lora.reload import load_file_into
from ddim_core.lora.specs import USUAL_OF_FLUX, USUAL_OF_SD3, LoraExecution, LoraSpec, PictureSpec
from ddim_core.lora.texts import embed_prompts
from ddim_core.lora.training.batches import TrainingImages, draws
from ddim_core.lora.training.loop import start, train
from ddim_core.lora.training.loss import Prompts
from ddim_core.lora.training.noising import noising_of
from ddim_core.lora.training.run import CHECKPOINT, LoraJob, run
from ddim_core.lora.training.validation import validation_loss
from ddim_core.text2image.base_folder import (
    load_network,
    load_noise_scheduler,
    load_pipeline,
    locate_base,
    own_resolution,
    size_step,
)
from ddim_core.text2image.families import clip_of, network_of
from ddim_core.text2image.pictures import pictures
from flows.requests.flat import build
from flows.requests.lora import StyleRequest
from tests.lora.material import noise_pictures, small_job
from tests.lora.tiny_base import write_tiny_flux_base, write_tiny_sd3_base

PROMPT, PICTURES = "a photo of sks cat", PictureSpec(steps=2, guidance=2.0, resolution=16)
TRAINED = {"steps": 3, "batch_size": 2, "learning_rate": 1e-2}
SPECS = {"sd3": replace(USUAL_OF_SD3, **TRAINED), "flux": replace(USUAL_OF_FLUX, **TRAINED)}
KINDS = sorted(SPECS)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("flows")
    return {
        "sd3": write_tiny_sd3_base(folder / "sd3"),
        "flux": write_tiny_flux_base(folder / "flux"),
        "schnell": write_tiny_flux_base(folder / "schnell", guidance_embeds=False),
    }


def losses_of(job: LoraJob) -> list[float]:
    state = start(job.spec, job.base, job.execution)
    images, class_images = job.images()
    prompts = Prompts.from_arrays(job.embeddings)
    return [step.loss for step in train(job.spec, state, prompts, images, class_images)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_base_is_known_and_its_sizes_are_its_own(bases: dict[str, Path], kind: str) -> None:
    base = locate_base(str(bases[kind]))
    assert size_step(base) == 2 * 2  # two halvings of the autoencoder, cells of 2 x 2 latents
    assert own_resolution(base) == {"sd3": 8 * 2, "flux": 128 * 2}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_are_those_of_the_pipeline(bases: dict[str, Path], kind: str) -> None:
    ours = embed_prompts(bases[kind], [PROMPT])
    pipeline = DiffusionPipeline.from_pretrained(bases[kind])
    given: dict[str, Any] = {"prompt": PROMPT, "prompt_2": None, "max_sequence_length": 77}
    if kind == "sd3":
        states, _, pooled, _ = pipeline.encode_prompt(
            **given, prompt_3=None, do_classifier_free_guidance=False
        )
    else:
        states, pooled, _ = pipeline.encode_prompt(**given)
    # Sums of float32 in another order, where the pipeline keeps what gradients need.
    torch.testing.assert_close(torch.from_numpy(ours["states"]), states, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.from_numpy(ours["pooled"]), pooled, rtol=1e-5, atol=1e-5)


def test_flux_is_asked_as_its_pipeline_asks_it(bases: dict[str, Path]) -> None:
    """Packing, places and the scale of time, against the pipeline's own functions."""
    network = load_network(bases["flux"])
    stream = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, 4, 6, 4, generator=stream)
    states, pooled = (torch.randn(2, *s, generator=stream) for s in ((7, 40), (16,)))
    t = torch.tensor([999.0, 500.0])
    with torch.no_grad():
        ours = recipe_of(bases["flux"]).answer(
            network, Shown(noisy, t, states, pooled, torch.zeros(2, 6), 3.5)
        )
        theirs = network(
            FluxPipeline._pack_latents(noisy, 2, 4, 6, 4), states, pooled, t / 1000,
            FluxPipeline._prepare_latent_image_ids(2, 3, 2, "cpu", torch.float32),
            torch.zeros(7, 3), torch.full((2,), 3.5), return_dict=False,
        )[0]  # fmt: skip
    assert torch.equal(ours, FluxPipeline._unpack_latents(theirs, 6, 4, 1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "option",
    [{"alpha": 2.0}, {"text_encoder": True, "rslora": True}, {"dora": True, "text_encoder": True}],
)
def test_the_exported_file_gives_back_the_lora_and_its_picture(
    bases: dict[str, Path], kind: str, option: dict[str, Any], tmp_path: Path
) -> None:
    base = bases[kind]
    spec = replace(SPECS[kind], **option)
    for _ in run(small_job(base, spec, with_class=True), tmp_path):
        pass
    weights = load_file(tmp_path / CHECKPOINT.format(spec.steps))
    encoders = {"text_encoder", "text_encoder_2"} if kind == "sd3" else {"text_encoder"}
    parts = {"transformer"} | (encoders if spec.text_encoder else set())
    assert {name.split(".")[0] for name in weights} == parts
    pipeline = pipeline_with(base, spec, weights)
    network, clip = network_of(pipeline), clip_of(pipeline)
    trained = portrait(pipeline, PROMPT, PICTURES)
    file = save_diffusers(tmp_path / "diffusers", network, clip)
    assert not has_kohya(network, clip)
    again_pipeline = load_pipeline(base)
    bare = portrait(again_pipeline, PROMPT, PICTURES)[PICTURE]
    load_file_into(again_pipeline, file)
    again = portrait(again_pipeline, PROMPT, PICTURES)
    assert set(again) == set(trained)
    assert [name for name in trained if not torch.equal(again[name], trained[name])] == []
    assert not torch.equal(bare, trained[PICTURE])


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_of_a_flow_changes_what_is_learnt(bases: dict[str, Path], kind: str) -> None:
    spec = SPECS[kind]
    options: list[dict[str, Any]] = [
        {"weighting": "mode"}, {"weighting": "cosmap"}, {"weighting": "sigma_sqrt"},
        {"precondition": not spec.precondition}, {"text_encoder": True},
        {"weighting": "logit_normal", "logit_mean": 1.0}, {"targets": ("attn.to_q",)},
    ]  # fmt: skip
    job = small_job(bases[kind], spec)
    plain = losses_of(job)
    for option in options:
        assert losses_of(replace(job, spec=replace(spec, **option))) != plain, option
    checkpointed = replace(job.execution, gradient_checkpointing=True)
    assert losses_of(replace(job, execution=checkpointed)) == plain
    half = losses_of(replace(job, spec=replace(spec, precision="bf16")))
    # bfloat16 has 8 bits, and an error of the first step is learnt from in the next two.
    assert half == pytest.approx(plain, rel=2**-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_learns_what_a_cpu_learns(bases: dict[str, Path], kind: str) -> None:
    """A CPU stands in for it; float32 sums in another order, over three steps of Adam."""
    job = small_job(bases[kind], SPECS[kind])
    card = replace(job, execution=replace(job.execution, device="cpu:0"))
    assert losses_of(card) == pytest.approx(losses_of(job), rel=1e-4)
    texts = [embed_prompts(bases[kind], ["", PROMPT], device) for device in ("cpu", "cpu:0")]
    for name, numbers in texts[0].items():
        np.testing.assert_allclose(texts[1][name], numbers, atol=1e-5)


def test_flux_is_told_of_guidance_where_it_has_an_embedding_of_it(bases: dict[str, Path]) -> None:
    spec = SPECS["flux"]
    for name, is_told in (("flux", True), ("schnell", False)):
        one, other = (
            losses_of(small_job(bases[name], replace(spec, trained_guidance=g))) for g in (1.0, 4.0)
        )
        assert (one != other) is is_told


def test_noise_levels_follow_their_density() -> None:
    """Of logit_normal, half of the levels lie below the sigmoid of its mean; mode at 0 is uniform.
    Five standard errors of 4000 draws."""
    error = 5 * (0.25 / 4000) ** 0.5
    for options, middle in (
        ({"weighting": "logit_normal", "logit_mean": 1.0}, torch.sigmoid(torch.tensor(1.0))),
        ({"weighting": "mode", "mode_scale": 0.0}, torch.tensor(0.5)),
        ({"weighting": "cosmap"}, torch.tensor(0.5)),
    ):
        spec = LoraSpec(batch_size=40, **options)  # type: ignore[arg-type]
        places = torch.cat([timesteps_of(spec, k) for k in range(100)]).float() / 1000
        assert places.min() >= 0.0
        assert places.max() < 1.0
        assert abs(float((places < middle).float().mean()) - 0.5) < error


def timesteps_of(spec: LoraSpec, k: int) -> torch.Tensor:
    images = TrainingImages([torch.zeros(1, 8, 2, 2)] * 40, [torch.zeros(1, 6)] * 40, [0] * 40, 1.0)
    (group,) = draws(spec, images, None, 1000)(k)
    return group.timesteps


def test_weights_of_a_flow_are_their_closed_forms(bases: dict[str, Path]) -> None:
    job = small_job(bases["sd3"], SPECS["sd3"])
    images, _ = job.images()
    noising = noising_of(load_noise_scheduler(bases["sd3"]))
    (group, *_) = draws(SPECS["sd3"], images, None, noising.n_train)(0)
    shift, u = 3.0, 1.0 - group.timesteps / 1000
    sigma = shift * u / (1.0 + (shift - 1.0) * u)
    expected = {
        ("none", False): torch.ones_like(sigma),
        ("none", True): sigma**2,
        ("sigma_sqrt", False): sigma**-2.0,
        ("cosmap", False): 2.0 / (torch.pi * (1.0 - 2.0 * sigma + 2.0 * sigma**2)),
    }
    latents = group.latent_noise
    for (weighting, precondition), factor in expected.items():
        spec = LoraSpec(weighting=weighting, precondition=precondition)  # type: ignore[arg-type]
        noisy, t, target, weights = noising.shown(spec, latents, group)
        wide = sigma[:, None, None, None]
        torch.testing.assert_close(noisy, (1.0 - wide) * latents + wide * group.noise)
        torch.testing.assert_close(t, 1000.0 * sigma)
        torch.testing.assert_close(target, group.noise - latents)
        torch.testing.assert_close(weights, group.weights * factor)


@pytest.mark.parametrize("kind", KINDS)
def test_a_validation_loss_is_lower_after_training_on_the_same_images(
    bases: dict[str, Path], kind: str
) -> None:
    spec = replace(SPECS[kind], steps=15, rank=8, batch_size=6)
    job = small_job(bases[kind], spec)
    state = start(spec, job.base, LoraExecution(threads=1))
    images, _ = job.images()
    prompts = Prompts.from_arrays(job.embeddings)
    for _ in train(spec, state, prompts, images):
        pass
    weights = {name: p.detach() for name, p in state.parameters.items()}
    before, after = (
        validation_loss(bases[kind], spec, w, prompts, images) for w in (None, weights)
    )
    assert after < before


@pytest.mark.parametrize(
    ("kind", "option", "said"),
    [
        ("sd3", {"snr_gamma": 5.0}, "snr_gamma is 5.0, and no part of how a StableDiffusion3Pip"),
        ("flux", {"noise_offset": 0.1}, "noise_offset is 0.1, and no part of how a FluxPipeline"),
        ("sd3", {"trained_guidance": 1.0}, "trained_guidance is 1.0, and no part"),
        ("flux", {"logit_std": 2.0}, "logit_std is 2.0, and weighting is none; logit_std belongs"),
        ("flux", {"targets": ("convolutions",)}, "no target module 'convolutions' in this base"),
    ],
)
def test_a_setting_of_another_kind_of_base_is_named(
    bases: dict[str, Path], kind: str, option: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        start(replace(SPECS[kind], **option), bases[kind], LoraExecution())


def test_stable_diffusion_has_no_weighting_of_a_flow(base: Path) -> None:
    with pytest.raises(ValueError, match="weighting is mode, and no part of how a StableDiffusion"):
        start(LoraSpec(weighting="mode"), base, LoraExecution())


def test_layers_of_the_scripts_own_targets_get_a_lora(bases: dict[str, Path]) -> None:
    network = load_network(bases["flux"])
    attach(network, [], USUAL_OF_FLUX)
    layers = {name.split(".lora_")[0].partition("blocks.")[2] for name in trainable(network, [])}
    assert "0.attn.add_q_proj" in layers
    assert "0.ff_context.net.0.proj" in layers
    assert not any("proj_mlp" in layer or "norm" in layer for layer in layers)


def test_a_base_without_its_t5_or_with_another_scheduler_is_named(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    copy = shutil.copytree(bases["sd3"], tmp_path / "copy")
    shutil.rmtree(copy / "text_encoder_3")
    with pytest.raises(ValueError, match="lacks its text_encoder_3"):
        locate_base(str(copy))
    again = shutil.copytree(bases["flux"], tmp_path / "again")
    (again / "tokenizer_2" / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"the tokenizer_2 of again has no tokenizer\.json"):
        locate_base(str(again))
    other = shutil.copytree(bases["flux"], tmp_path / "other")
    index = json.loads((other / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "FlowMatchHeunDiscreteScheduler"]
    (other / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="scheduler of other is a FlowMatchHeunDiscreteScheduler"):
        locate_base(str(other))


def test_noise_on_the_way_and_latents_that_are_not_only_scaled_are_refused(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    for kind, file, told, said in (
        ("flux", "scheduler/scheduler_config.json", {"stochastic_sampling": True},
         "with stochastic_sampling off"),
        ("sd3", "vae/config.json", {"latents_mean": [0.1] * 4}, "latents_mean is set in vae"),
    ):  # fmt: skip
        copy = shutil.copytree(bases[kind], tmp_path / kind)
        settings = json.loads((copy / file).read_text())
        (copy / file).write_text(json.dumps(settings | told))
        with pytest.raises(ValueError, match=said):
            locate_base(str(copy))
    pipeline = load_pipeline(tmp_path / "flux")
    with pytest.raises(ValueError, match="may add noise that belongs to no picture"):
        pictures(pipeline, ["a cat"], [5], 2, resolution=16)


def test_another_trainers_settings_are_checked_on_the_base_that_they_name(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    """Before Prefect runs, as after: else a flow's option would be refused for the usual base."""
    from flows.early.refuse import refuse

    write_captioned(noise_pictures(2), tmp_path / "cats")
    (tmp_path / "cats" / "metadata.jsonl").unlink()
    model, words = json.dumps({"name_or_path": str(bases["sd3"])}), "default_caption: a cat"
    (tmp_path / "train.yaml").write_text(
        "config:\n  process:\n  - type: sd_trainer\n    network: {type: lora, linear: 2}\n"
        f"    model: {model}\n    datasets: [{{folder_path: cats, resolution: 16, {words}}}]\n"
    )
    asked = {"data": str(tmp_path / "train.yaml"), "weighting": "mode"}
    refuse(build(StyleRequest, asked))
    with pytest.raises(ValueError, match=r"pictures of \d+ pixels .*; this base takes at most 64"):
        refuse(build(StyleRequest, {**asked, "resolution": 128}))


def test_pictures_of_a_flow_depend_on_their_seed_alone(bases: dict[str, Path]) -> None:
    for kind in KINDS:
        pipeline = load_pipeline(bases[kind])
        prompts = ["a red cat", "a blue dog", "sks"]
        drawn = pictures(pipeline, prompts, [5, 6, 7], 2, batch_size=3, resolution=16)
        turned = pictures(pipeline, prompts[::-1], [7, 6, 5], 2, batch_size=3, resolution=16)
        assert np.array_equal(turned[::-1], drawn)
