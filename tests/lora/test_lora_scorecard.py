"""The scorecard's tasks on a tiny base with a random LoRA: pictures, measures, rows, report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from ddim_core.diffusion.specs import Execution
from ddim_core.image_scores.registry import ImageScoreChoice
from ddim_core.lora.scoring.likeness import ClipModel, DinoModel
from ddim_core.lora.scoring.measures import MEANINGS
from ddim_core.lora.scoring.scorecard import Measure
from ddim_core.lora.scoring.specs import PromptSet
from ddim_core.lora.specs import LatentSpec, LoraSpec, PictureSpec
from ddim_core.reports.lora_sentences import read_scorecard
from ddim_core.text2image.scenes import SUBJECTS, subject_scenes
from ddim_core.text2image.small_base import caption_tokenizer, new_pipeline, save_base
from ddim_core.text2image.specs import BaseSpec
from flows.lora.prompt_sets import style_sets, unnamed_subjects
from tasks.image_scores.judge import judge_images, values_of
from tasks.image_scores.ready import ready_image_score
from tasks.images.stored_prompts import store_prompts
from tasks.lora.data import CaptionedImages
from tasks.lora.export import Gate
from tasks.lora.record import LoraRecord
from tasks.lora.scoring.measure import (
    Compared,
    JudgedScales,
    _asked,
    score_pictures,
    scores_of,
    thumbnails,
)
from tasks.lora.scoring.pictures import DrawnPictures, draw_prompts
from tasks.lora.scoring.table import lora_rows, read_lora_table, trained_here, write_lora_rows
from tasks.lora.scoring.vision_models import model_digest, model_folder
from tasks.lora.train import Training
from tasks.reports.lora import render_lora_report
from tasks.reports.lora_card import write_card
from tasks.storage import places, store
from tasks.text2image.embedded import INSTANCE_WORDS, instance_prompt, style_folder, subject_folder
from tests.core.image_scores.folders import clip_folder

PROMPTS = tuple(instance_prompt(scene.background) for scene in subject_scenes())
ASKED = PromptSet("instance", PROMPTS, per_prompt=2, steps=2, guidance=2.0)
SCALES = [0.0, 0.5, 1.0]
GATE = Gate(0.0, 0.0)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(places, "DATA_URL", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def small(data: Path, tmp_path: Path) -> tuple[str, store.ArtifactRef]:
    """A tiny untrained base of 16 pixels, and a LoRA of random weights in the store."""
    spec = BaseSpec(widths=(8, 16), text_width=16, text_layers=1, heads=2)
    pipeline = new_pipeline(spec, PROMPTS)
    save_base(pipeline, tmp_path / "base")
    torch.manual_seed(0)
    pipeline.unet.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=["to_v"]))
    StableDiffusionPipeline.save_lora_weights(
        tmp_path / "lora", unet_lora_layers=get_peft_model_state_dict(pipeline.unet)
    )
    return str(tmp_path / "base"), store.put_folder(tmp_path / "lora")


def drawn(small: tuple[str, store.ArtifactRef], scale: float) -> DrawnPictures:
    base, lora = small
    given = lora if scale else None
    return draw_prompts.fn(ASKED, {"unet": "x"}, given, scale, base, Execution(batch_size=16))


def record_of(small: tuple[str, store.ArtifactRef], data: CaptionedImages) -> LoraRecord:
    base, lora = small
    losses = store.put_arrays({"loss": np.ones(4)}, "losses")
    return LoraRecord(
        title="mine", name="mine-1", lora=lora, kohya=lora,
        gate={"diffusers": GATE, "kohya": GATE},
        training=Training(lora, (), losses, steps=3, seconds=1.0, peak_memory_bytes=1),
        validation=(), validation_prompts=[], data=data, class_data=None, base=base,
        base_name="tiny", base_digests={"unet": "x"},
    )  # fmt: skip


@pytest.mark.parametrize("drawn_by", [style_folder, subject_folder])
def test_the_card_of_a_lora_of_the_embedded_images_says_what_it_was_trained_on(
    small: tuple[str, store.ArtifactRef], drawn_by: Any
) -> None:
    data = drawn_by.fn(16)
    record = record_of(small, data)
    folder = write_card.fn(record, LoraSpec(), LatentSpec(), PictureSpec(), "")
    assert f"{data.n_images} captioned images" in Path(folder, "README.md").read_text()


def test_a_scorecard_goes_from_prompts_to_rows_and_a_page(
    small: tuple[str, store.ArtifactRef],
) -> None:
    pictures = [drawn(small, scale) for scale in SCALES]
    training = subject_folder.fn(16)
    known = Compared(training, subject=training, base=pictures[0])
    scores = score_pictures.fn(ASKED, SCALES, pictures, known, {}, thumbnails(), {}, {})
    record = record_of(small, training)
    told = "subject", trained_here(record, LoraSpec(rank=2)), ASKED, pictures, scores
    rows = lora_rows(*told, Execution())
    carded = lora_rows(*told, Execution(device="cuda:0,cuda:2"))
    assert {row.device for row in carded} == {"cuda"}
    assert len({row.row_digest for row in [*rows, *carded]}) == 2 * len(rows)  # both stay
    assert carded == lora_rows(*told, Execution(device="cuda:1"))
    assert [row.scale for row in rows] == SCALES
    assert len({row.row_digest for row in rows}) == 3
    unchanged, likeness = rows[0].measures["diversity"].change, rows[2].measures["subject_likeness"]
    assert unchanged is not None
    assert unchanged.value == 0.0
    assert likeness.low is not None
    assert likeness.low <= likeness.value
    assert "style_distance" not in rows[2].measures  # a subject has no style
    write_lora_rows.fn(rows)
    write_lora_rows.fn(rows)  # in place of the first ones
    frame = read_lora_table()
    assert list(frame["scale"]) == SCALES
    files = places.data_url("results", "lora", "*.parquet")
    query = f"select max(scale), count(base_distance) from '{files}'"
    assert duckdb.sql(query).fetchall() == [(1.0, 3)]
    losses = store.put_arrays({"loss": np.array([1.0, 0.8, 0.7])}, "losses")
    report = render_lora_report.fn(
        rows, [ASKED], [pictures], training, losses, [(0, 1.0), (3, 0.9)], None, "<b>CC</b>",
    )  # fmt: skip
    page = store.get(report.page).decode()
    assert page.count('src="data:image/png;base64,') == 2  # beside, sweep
    assert "&lt;b&gt;CC" in page  # names from data are escaped
    assert 'src="http' not in page
    assert "default-src &#39;none&#39;" in page  # self-contained, and so it stays
    assert report.reading == read_scorecard(rows)
    likeness = [rows[i].measures["subject_likeness"].value for i in (0, -1)]
    first = re.search('<div class="reading first">\n<p>(.*?)</p>', page)
    assert first
    assert f"At scale {rows[-1].scale:g}, " in first[1]
    assert "{:.3g} -&gt; {:.3g}".format(*likeness) in first[1]


def test_pictures_are_judged_one_by_one_against_the_base_on_the_same_noise(
    small: tuple[str, store.ArtifactRef], tmp_path: Path
) -> None:
    pictures = [drawn(small, scale) for scale in SCALES]
    folder = clip_folder(tmp_path / "clip")
    score = ready_image_score.fn(ImageScoreChoice("pick-score", str(folder)))
    prompts = store.ArtifactRef(store_prompts(ASKED.texts), "prompts")
    values = [judge_images.fn(p, score, prompts, 0, Execution()) for p in pictures]
    training = subject_folder.fn(16)
    known = Compared(training, subject=training, base=pictures[0])
    told = ASKED, SCALES, pictures, known, {}, thumbnails(), {}, {}
    scores = score_pictures.fn(*told, judged=[JudgedScales(score, tuple(values))])
    rows = lora_rows(
        "subject", trained_here(record_of(small, training), LoraSpec(rank=2)), ASKED, pictures,
        scores, Execution(),
    )  # fmt: skip
    base, full = (values_of([values[i].artifact]).astype(float) for i in (0, 2))
    found = rows[2].measures["pick_score"]
    assert found.value == pytest.approx(full.mean())
    assert found.change is not None
    assert found.change.value == pytest.approx((full - base).mean())
    # One picture of two prompts' means moves less than the pictures differ among themselves.
    assert found.change.se < full.std() / np.sqrt(len(full))
    assert any("pick_score, which picture" in sentence for sentence in read_scorecard(rows))
    assert scores.extractor_digest != score_pictures.fn(*told).extractor_digest
    write_lora_rows.fn(rows)
    assert list(read_lora_table()["pick_score_change"])[2] == found.change.value


def test_scale_0_is_the_base_and_pictures_are_paired(small: tuple[str, store.ArtifactRef]) -> None:
    base, full = (store.get_arrays(drawn(small, scale))["images"] for scale in (0.0, 1.0))
    again = store.get_arrays(drawn(small, 0.0))["images"]
    np.testing.assert_array_equal(base, again)
    assert (base != full).any()
    nearer = np.abs(base.astype(int) - full).mean()
    assert nearer < np.abs(base.astype(int) - np.roll(full, 1, axis=0)).mean()


def test_clip_and_dino_folders_are_measured_by(data: Path, tmp_path: Path) -> None:
    tokenizer = caption_tokenizer(PROMPTS, 700, 16)
    text = {"vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 32,
            "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 16,
            "eos_token_id": tokenizer.eos_token_id}  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
              "num_attention_heads": 2, "image_size": 32, "patch_size": 8}  # fmt: skip
    clip, dino = tmp_path / "clip", tmp_path / "dino"
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(
        clip
    )
    size = {"height": 32, "width": 32}
    CLIPImageProcessor(size=size, crop_size=size).save_pretrained(clip)
    tokenizer.save_pretrained(clip)
    Dinov2Model(
        Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32,
                     patch_size=8)
    ).save_pretrained(dino)  # fmt: skip
    ViTImageProcessor(size=size).save_pretrained(dino)
    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
    for model in (ClipModel(model_folder("clip", str(clip))), DinoModel(dino)):
        vectors = model.images(images)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
        np.testing.assert_allclose(model.images(images[1:2])[0], vectors[1], atol=1e-5)
        assert model.images(images.copy()) is vectors  # one set goes through once
        assert not np.array_equal(model.images(255 - images), vectors)  # and another by itself
    for kind, folder in ((ClipModel, clip), (DinoModel, dino)):  # on what stands in for a card
        here, there = (kind(folder, device).images(images) for device in ("cpu", "cpu:0"))
        np.testing.assert_allclose(there, here, atol=1e-5)
    assert ClipModel(clip).texts(["panda", "owl"]).shape == (2, 8)
    assert model_digest(str(clip)) != model_digest(str(dino))
    with pytest.raises(ValueError, match="is a 'dinov2'; CLIP must be a 'clip'"):
        ClipModel(dino)
    without = load_file(dino / "model.safetensors")
    del without["layernorm.weight"]
    save_file(without, dino / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights of DINO, among them layernorm.weight"):
        DinoModel(dino)
    vit = tmp_path / "vit"  # as DINO was published: a ViT without a pooler
    ViTModel(
        ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32,
                  patch_size=8),
        add_pooling_layer=False,
    ).save_pretrained(vit)  # fmt: skip
    ViTImageProcessor(size=size).save_pretrained(vit)
    assert DinoModel(vit).images(images).shape == (3, 16)
    with pytest.raises(ValueError, match="clip is 'no/such', which is no folder here"):
        model_folder("clip", "no/such")


def test_every_measure_has_columns_of_its_own(data: Path) -> None:
    names = list(read_lora_table().columns)
    for name in MEANINGS:
        for end in ("", "_low", "_high", "_change", "_change_low", "_change_high", "_p_value"):
            assert name + end in names


def test_a_share_changes_by_at_most_all_of_it() -> None:
    before = Measure(0.0, 0.0, 0.1, (0.0, 0.0, 0.0), (1, 1, 1))
    after = Measure(2 / 3, 0.2, 1.0, (0.5, 0.5, 1.0), (1, 1, 1))
    found = scores_of({"asked_subject": after, "diversity": after},
                   {"asked_subject": before, "diversity": before})  # fmt: skip
    asked, free = found["asked_subject"].change, found["diversity"].change
    assert asked is not None
    assert free is not None
    assert asked.high == 1.0 < free.high


def test_on_the_embedded_base_a_users_own_style_is_scored_on_subjects_it_does_not_name() -> None:
    captions = ["a cat emoji on a red background", "panda on blue"]
    unnamed = unnamed_subjects(captions)
    assert len(unnamed) == len(SUBJECTS) - 2
    training = store.ArtifactRef(artifact="t", kind="folder")
    held_out, trained = style_sets(training, captions, unnamed, None, ASKED)
    assert (held_out.asked.role, trained.asked.role) == ("held-out", "trained")
    assert held_out.asked.prompts == tuple(unnamed)  # all of them
    assert trained.asked.prompts == tuple(captions)


def test_the_judge_is_not_asked_for_a_subject_it_does_not_know() -> None:
    assert _asked(ASKED, {}) is None
    assert _asked(ASKED, {INSTANCE_WORDS: "unicorn"}) == {
        "subject": ["unicorn"] * 10,
        "background": [s.background for s in subject_scenes() for _ in range(2)],
    }
