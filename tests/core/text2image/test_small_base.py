"""The small text-to-image base: its parts, its training, and what is shipped."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers import CLIPTextModel, CLIPTokenizer

from ddim_core.images.pixels import from_uint8
from ddim_core.text2image import drawings, embedded
from ddim_core.text2image.base_folder import load_pipeline
from ddim_core.text2image.drawings import LOOKS, SHEETS
from ddim_core.text2image.embedded import embedded_base
from ddim_core.text2image.pictures import open_pipeline, pictures
from ddim_core.text2image.scenes import (
    BACKGROUNDS,
    NEW_SUBJECT,
    SUBJECTS,
    TEMPLATES,
    Scene,
    base_scenes,
    captions,
    draw,
    draw_all,
    look_scenes,
    subject_scenes,
    unseen_scenes,
)
from ddim_core.text2image.small_base import (
    BaseSpec,
    caption_tokenizer,
    clip_tokenizer,
    grown,
    identity_autoencoder,
    new_pipeline,
    save_base,
)
from ddim_core.text2image.specs import JudgeSpec
from ddim_core.text2image.training import (
    BaseTrainSpec,
    averaged,
    learning_rate,
    load_base_state,
    save_base_state,
    start_base,
    train_base,
)
from flows.requests.base import BaseRequest
from tasks.text2image.base_card import _command, _recipe_of
from tasks.text2image.judge import _shipped

TINY = BaseSpec(resolution=8, widths=(8, 16), text_width=16, text_layers=1, heads=2)
CAPTIONS = [scene.caption(template) for scene in base_scenes() for template in TEMPLATES]


def spec(steps: int) -> BaseTrainSpec:
    return BaseTrainSpec(model=TINY, steps=steps, batch_size=4, warmup_steps=2)


def scenes() -> tuple[np.ndarray, list[list[str]]]:
    some = base_scenes()[::60]
    return draw_all(some, 8), [[s.caption(t) for t in TEMPLATES] for s in some]


def test_the_autoencoder_gives_pixels_back() -> None:
    """Its variance term errs by x^2 / K^2, K = 256: 5e-5 at most, of pixels 8e-3 apart."""
    x = torch.rand((4, 3, 16, 16), generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    vae = identity_autoencoder(16)
    latents = vae.encode(x).latent_dist
    assert (latents.sample() - x).abs().max() < 5e-5
    assert (latents.mean - x).abs().max() < 5e-5
    assert (vae.decode(latents.mean).sample - x).abs().max() < 1e-4


def test_every_word_of_the_captions_is_one_token_and_any_text_has_tokens() -> None:
    tokenizer = caption_tokenizer(sorted(set(CAPTIONS)), 1024, 16)
    for subject in SUBJECTS:
        text = f"{subject} on white"
        assert len(tokenizer.tokenize(text)) == 3, subject
    pieces = tokenizer.tokenize("sks unicorn, Ünïcode 🦄")
    assert len(pieces) > 4
    ids = tokenizer("sks unicorn, Ünïcode 🦄").input_ids
    assert tokenizer.unk_token_id not in ids[1:-1]
    assert tokenizer.decode(ids[1:-1]) == "sks unicorn , ünïcode 🦄"
    assert tokenizer.model_max_length == 16


def test_a_saved_pipeline_is_opened_by_its_libraries(tmp_path: Path) -> None:
    pipeline = new_pipeline(TINY, CAPTIONS)
    save_base(pipeline, tmp_path)
    opened = StableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    text = CLIPTextModel.from_pretrained(tmp_path / "text_encoder")
    assert tokenizer(CAPTIONS[:3]) == pipeline.tokenizer(CAPTIONS[:3])
    assert tokenizer.model_max_length == TINY.max_tokens
    for ours, theirs in ((pipeline.unet, opened.unet), (pipeline.text_encoder, text)):
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b)
    assert (tmp_path / "tokenizer" / "vocab.json").is_file()
    assert (tmp_path / "tokenizer" / "merges.txt").is_file()
    drawn = pictures(open_pipeline(tmp_path), CAPTIONS[:2], [0, 1], steps=2, batch_size=2)
    assert drawn.shape == (2, 8, 8, 3)


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
def test_training_taken_up_again_ends_with_the_same_weights(tmp_path: Path, device: str) -> None:
    images, captions = scenes()
    whole = start_base(spec(6), captions, device)
    losses = [record.loss for record in train_base(spec(6), images, captions, whole)]
    assert len(losses) == 6
    part = start_base(spec(3), captions, device)
    list(train_base(spec(3), images, captions, part))
    save_base_state(spec(3), part, tmp_path / "state")
    resumed = load_base_state(spec(6), tmp_path / "state", device)  # of a shorter run
    again = [record.loss for record in train_base(spec(6), images, captions, resumed)]
    assert again == losses[3:]
    for name, value in whole.average.items():
        assert torch.equal(value, resumed.average[name]), name
    ours, theirs = averaged(whole).unet.state_dict(), averaged(resumed).unet.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_grown_base_predicts_at_first_what_the_smaller_one_does(tmp_path: Path) -> None:
    """Away from the borders of plain pictures; one that has not grown predicts something else."""
    larger = replace(TINY, resolution=16, widths=(8, 8, 16), text_levels=1)
    small, other = (new_pipeline(s, CAPTIONS) for s in (TINY, larger))
    save_base(small, tmp_path / "small")
    larger_one = grown(larger, tmp_path / "small")
    assert larger_one.tokenizer.get_vocab() == small.tokenizer.get_vocab()
    stream = torch.Generator().manual_seed(0)
    colours, hidden = (torch.randn(shape, generator=stream) for shape in ((4, 3, 1, 1), (4, 5, 16)))
    t = torch.tensor([100, 300, 600, 900])

    def predicted(pipeline: StableDiffusionPipeline, side: int) -> torch.Tensor:
        x = colours.expand(-1, -1, side, side)
        with torch.no_grad():
            return pipeline.unet(x, t, hidden).sample[..., side // 2, side // 2]

    expected = predicted(small, 32)
    errors = [(predicted(p, 64) - expected).square().mean() for p in (larger_one, other)]
    size = expected.square().mean()  # random attention hears the borders: 0.18 was seen
    assert errors[0] < 0.25 * size
    assert errors[1] > size
    for widths in ((8, 16, 16), (8, 8, 8, 16)):
        with pytest.raises(ValueError, match="does not fit"):
            grown(replace(larger, widths=widths), tmp_path / "small")


def test_a_state_keeps_the_tokens_that_its_weights_know(tmp_path: Path) -> None:
    """Learnt again, merges that are equally common may come in another order."""
    _, captions = scenes()
    state = start_base(spec(1), captions)
    tokens = dict(state.pipeline.tokenizer.get_vocab())
    a, b = sorted(tokens)[-2:]
    tokens[a], tokens[b] = tokens[b], tokens[a]
    merges = json.loads(state.pipeline.tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    state.pipeline.tokenizer = clip_tokenizer(tokens, merges, TINY.max_tokens)
    save_base_state(spec(1), state, tmp_path / "state")
    again = load_base_state(spec(1), tmp_path / "state")
    assert again.pipeline.tokenizer.get_vocab() == tokens


def test_a_damaged_or_foreign_state_is_refused(tmp_path: Path) -> None:
    _, captions = scenes()
    path = tmp_path / "state"
    save_base_state(spec(3), start_base(spec(3), captions), path)
    with pytest.raises(ValueError, match="another run"):
        load_base_state(BaseTrainSpec(model=TINY, steps=3, seed=1), path)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        load_base_state(spec(3), path)


def test_training_learns_the_colours_of_backgrounds() -> None:
    """In 60 steps the loss falls well below that of predicting nothing."""
    images, captions = scenes()
    asked = BaseTrainSpec(model=TINY, steps=60, batch_size=16, warmup_steps=10, learning_rate=4e-3)
    losses = [r.loss for r in train_base(asked, images, captions, start_base(asked, captions))]
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:5])


def test_learning_rate_does_not_know_the_last_step() -> None:
    short, long = spec(10), spec(100000)
    rates = [learning_rate(long, step) for step in range(9000)]
    assert [learning_rate(short, step) for step in range(10)] == rates[:10]
    assert rates[0] == pytest.approx(long.learning_rate / 2)
    assert max(rates) == long.learning_rate == rates[1999]
    assert rates[7999] == pytest.approx(long.learning_rate / 2)  # sqrt(2000 / 8000)


def test_bad_input_is_refused_in_words(tmp_path: Path) -> None:
    images, captions = scenes()
    state = start_base(spec(1), captions)
    with pytest.raises(ValueError, match=r"shape \(.*\); the base needs"):
        next(train_base(spec(1), images[:, :4], captions, state))
    with pytest.raises(ValueError, match="have 2 captions"):
        next(train_base(spec(1), images, captions[:2], state))
    with pytest.raises(ValueError, match="resolution is 12"):
        BaseSpec(resolution=12)
    with pytest.raises(ValueError, match="subject is 'wolf'"):
        Scene("wolf", "red")
    with pytest.raises(ValueError, match="background is 'pink'"):
        Scene("cat", "pink")
    with pytest.raises(ValueError, match="no diffusers pipeline"):
        open_pipeline(Path("/nowhere"))
    with pytest.raises(ValueError, match=r"of 16 pixels and widths .*one of 64 pixels and widths"):
        BaseRequest(resolution=64, start=str(base_16()))
    config = {"sample_size": 8, "block_out_channels": list(BaseSpec.of(8).widths)}
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"16 pixels starts from one of 16 pixels and w.*grow fro"):
        BaseRequest(resolution=16, start=str(tmp_path))
    BaseRequest(resolution=8, start=str(tmp_path))
    with pytest.raises(ValueError, match="resolution is 20; it must be a multiple of 8"):
        BaseRequest(resolution=20)
    BaseRequest(resolution=32, start=str(embedded_base()))
    with pytest.raises(ValueError, match="2 prompts have 1 seeds"):
        pictures(None, ["a", "b"], [0])


def test_scenes_keep_one_background_and_the_unicorn_from_the_base() -> None:
    seen = {(s.subject, s.background) for s in base_scenes()}
    kept = {(s.subject, s.background) for s in unseen_scenes()}
    assert not seen & kept
    assert len(seen | kept) == len(SUBJECTS) * len(BACKGROUNDS)
    assert {s.subject for s in unseen_scenes()} == set(SUBJECTS)
    assert all(NEW_SUBJECT not in caption for caption in CAPTIONS)
    assert {s.subject for s in subject_scenes()} == {NEW_SUBJECT}


def test_captions_have_the_right_article() -> None:
    assert Scene("panda", "blue").caption() == "a panda emoji on a blue background"
    assert Scene("owl", "orange").caption() == "an owl emoji on an orange background"
    assert Scene("unicorn", "red").caption(TEMPLATES[1]) == "an emoji of a unicorn, red background"


def test_a_scene_has_its_background_in_the_corners() -> None:
    image = draw(Scene("ghost", "purple", "openmoji"), 16)
    corner = np.abs(image[0, 0].astype(int) - np.array(BACKGROUNDS["purple"]))
    assert corner.max() <= 2  # rounding of the area average


def test_the_judge_that_comes_with_the_base_serves_its_own_recipe_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = JudgeSpec(resolution=32)
    place = embedded.embedded_judge()
    assert place is not None
    shipped = embedded.judge_digest()
    assert _shipped(asked, shipped) is not None
    flipped = bytearray(place.read_bytes())
    other = replace(asked, steps=3)
    assert _shipped(other, shipped) is _shipped(JudgeSpec(resolution=16), shipped) is None
    with pytest.raises(ValueError, match="another judge than the run began with"):
        _shipped(asked, "0" * 64)
    monkeypatch.setattr(embedded, "PLACES", (tmp_path,))  # no base: train-base makes one
    assert embedded.judge_digest() == ""
    assert _shipped(asked, "") is None
    flipped[-1000] ^= 1  # a weight, which safetensors opens without a word
    for damaged in (place.read_bytes(), b"half of it", bytes(flipped)):  # the first has no card
        (tmp_path / "judge.safetensors").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"judge\.safetensors is damaged, or not the judge"):
            embedded.judge_digest()
        shutil.copy(place.with_name("card.json"), tmp_path)
    card = json.loads(
        (tmp_path / "card.json").read_text()
    )  # as train-base writes a base of one's own
    card["judge"]["sha256"] = hashlib.sha256(flipped).hexdigest()
    (tmp_path / "card.json").write_text(json.dumps(card))
    assert embedded.judge_digest() == card["judge"]["sha256"] != shipped


def test_a_sheet_of_other_drawings_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHEETS, "noto", "0" * 64)
    drawings._sheet.cache_clear()
    with pytest.raises(ValueError, match=r"noto\.png is damaged or another one"):
        drawings.drawing("noto", "x", 0)


def base_16() -> Path:
    return Path(__file__).parents[3] / "data" / "base"


def test_further_looks_are_named_and_leave_out_what_was_never_shown() -> None:
    scenes = look_scenes()
    words = captions(scenes)
    kept_out = {(scene.subject, scene.background) for scene in unseen_scenes()}
    assert not kept_out & {(scene.subject, scene.background) for scene in scenes}
    by_look = {scene.style: said for scene, said in zip(scenes, words, strict=True)}
    assert set(by_look) == {"twemoji", *LOOKS}
    for look in LOOKS:
        assert {f"{look} cat emoji on blue", f"cat on blue, {look}"} <= {
            text for said in words for text in said
        }
    plain, inked, flat = (
        draw(Scene("cat", "blue", **how), 32)  # type: ignore[arg-type]
        for how in ({}, {"inked": True}, {"style": "flat"})
    )
    assert (inked < 30).all(axis=2).sum() > 2 * (plain < 30).all(axis=2).sum() + 20  # black lines
    assert np.abs(flat.astype(int) - plain).mean() > 5
    with pytest.raises(ValueError, match="fire has no drawing of 'robot'"):
        draw(Scene("robot", "blue", "fire"), 32)


@pytest.mark.parametrize(("folder", "steps"), [(base_16, 10), (embedded_base, 4)])
def test_a_shipped_base_is_small_and_draws_what_is_asked_for(
    folder: Callable[[], Path], steps: int
) -> None:
    """The corners have the background's colour; the picture is nearer to its own subject's drawing
    than to those of the other seven on the same background."""
    base = folder()
    assert sum(p.stat().st_size for p in base.rglob("*") if p.is_file()) < 10e6
    assert "CC-BY 4.0" in (base / "README.md").read_text()
    asked = [Scene(s, b) for s, b in zip(list(SUBJECTS)[::10], BACKGROUNDS, strict=True)]
    drawn = pictures(load_pipeline(base), [s.caption() for s in asked], list(range(8)), steps)
    real = draw_all(asked, drawn.shape[1])
    corners = np.abs(from_uint8(drawn) - from_uint8(real))[:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert np.median(corners) < 0.1  # of [-1, 1]; named colours lie at least 0.4 apart
    for i, scene in enumerate(asked):
        others = draw_all([replace(o, background=scene.background) for o in asked], len(real[i]))
        apart = np.square(drawn[i].astype(int) - others).mean(axis=(1, 2, 3))
        assert apart.argmin() == i, scene.subject


@pytest.mark.parametrize("told", ["[]", "{", '{"training": 3}', '{"recipe": "x"}'])
def test_a_strange_card_of_the_start_loses_no_training(told: str, tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(told)
    assert _recipe_of(tmp_path) == []
    (tmp_path / "card.json").write_text('{"recipe": ["ddim train-base"]}')
    assert _recipe_of(tmp_path) == ["ddim train-base"]
    assert _command(BaseTrainSpec(), "", "base", 7).endswith("--judge-steps 7 --output base")
