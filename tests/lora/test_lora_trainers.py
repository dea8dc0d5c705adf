"""What others' trainers read: kohya's folders and dataset TOML, ai-toolkit's YAML."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ddim_core.lora.data import (
    captioned_sources,
    class_sources,
    content_of,
    notes_on,
    read_captioned,
    read_photos,
    require_data,
    require_one_subject,
    write_captioned,
)
from ddim_core.lora.specs import LoraSpec
from ddim_core.lora.training.batches import TrainingImages, draws
from flows.requests.flat import build
from flows.requests.lora import StyleRequest, SubjectRequest
from tests.lora.material import noise_pictures


def folder(place: Path, n: int, texts: dict[int, str] | None = None, ending: str = ".txt") -> Path:
    """n pictures, some with a file of its caption beside."""
    place.mkdir(parents=True)
    for i, item in enumerate(noise_pictures(n, seed=len(place.name))):
        (place / item.name).write_bytes(item.data)
        if text := (texts or {}).get(i):
            (place / item.name).with_suffix(ending).write_text(text)
    return place


@pytest.fixture
def kohya(tmp_path: Path) -> Path:
    """Two folders in its layout, 10 times and 4 times, and one without a number."""
    folder(tmp_path / "set" / "10_sks cat", 2, {0: "a sks cat, red"})
    folder(tmp_path / "set" / "4_sks dog", 1)
    folder(tmp_path / "set" / "drafts", 1)
    return tmp_path / "set"


def test_folders_of_kohya_give_repeats_and_words_for_images_without_captions(kohya: Path) -> None:
    items = read_captioned(kohya)
    assert [(item.name, item.caption, item.repeats) for item in items] == [
        ("10_sks cat/0.png", "a sks cat, red", 5),  # 10 and 4 without their common factor
        ("10_sks cat/1.png", "sks cat", 5),
        ("4_sks dog/0.png", "sks dog", 2),
    ]
    (first, *_) = notes_on(captioned_sources(kohya))
    assert "seen 10 times those of 10_sks cat, 4 times those of 4_sks dog" in first
    assert any("left out: drafts" in note for note in notes_on(captioned_sources(kohya)))


def test_an_archive_in_kohyas_layout_is_read_alike(kohya: Path, tmp_path: Path) -> None:
    packed = Path(shutil.make_archive(str(tmp_path / "set"), "zip", kohya))
    assert zipfile.is_zipfile(packed)
    assert read_captioned(packed) == read_captioned(kohya)


def test_images_seen_more_often_come_more_often(kohya: Path) -> None:
    repeats = [item.repeats for item in read_captioned(kohya)]
    images = TrainingImages(
        [torch.full((1, 8, 2, 2), float(i)) for i in range(3)], [torch.zeros(1, 6)] * 3, [0] * 3,
        1.0, 0.0, repeats,
    )  # fmt: skip
    draw = draws(LoraSpec(batch_size=4), images, None, 1000)
    seen = torch.cat([g.moments[:, 0, 0, 0] for k in range(3) for g in draw(k)])
    assert torch.bincount(seen.long()).tolist() == repeats  # one time through


def test_repeats_are_written_beside_the_captions(kohya: Path, tmp_path: Path) -> None:
    write_captioned(read_captioned(kohya), tmp_path / "out")
    assert '"repeats": 5' in (tmp_path / "out" / "metadata.jsonl").read_text()
    names = [item.name for item in read_captioned(tmp_path / "out")]
    assert names == [item.name for item in read_captioned(kohya)]


def test_photos_of_a_subject_need_no_captions_and_keep_their_repeats(kohya: Path) -> None:
    items = read_photos(kohya, "a photo of sks cat")
    assert {item.caption for item in items} == {"a photo of sks cat"}
    assert [item.repeats for item in items] == [5, 5, 2]
    with pytest.raises(ValueError, match="set has several subjects: sks cat, sks dog; one is"):
        require_one_subject(kohya)


@pytest.mark.parametrize("name", ["0_cat", "100000_cat", "20000_cat"])
def test_repeats_that_cannot_be_are_named(tmp_path: Path, name: str) -> None:
    folder(tmp_path / "set" / name, 1)
    with pytest.raises(ValueError, match=f"the folder {name} has .* repeats; a number of 1 to"):
        read_captioned(tmp_path / "set")


TOML = """
[general]
shuffle_caption = true
keep_tokens = 1
caption_extension = ".cap"
cache_latents = false

[[datasets]]
resolution = 512
batch_size = 4
enable_bucket = true
min_bucket_reso = 256

  [[datasets.subsets]]
  image_dir = "cats"
  class_tokens = "sks cat"
  num_repeats = 3
  flip_aug = true
  caption_prefix = "best,"

  [[datasets.subsets]]
  is_reg = true
  image_dir = "reg"
  class_tokens = "cat"

[[datasets]]
resolution = [768, 768]
  [[datasets.subsets]]
  image_dir = "dogs"
  keep_tokens = 2
"""


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    folder(tmp_path / "cats", 2, {0: "one cat"}, ".cap")
    folder(tmp_path / "reg", 2)
    folder(tmp_path / "dogs", 1, {0: "a dog"}, ".cap")
    (tmp_path / "set.toml").write_text(TOML)
    return tmp_path / "set.toml"


def test_kohyas_toml_gives_images_captions_and_repeats(toml: Path) -> None:
    require_data(str(toml))
    items = read_captioned(toml)
    assert [(item.name, item.caption, item.repeats) for item in items] == [
        ("0-cats/0.png", "best, one cat", 3),
        ("0-cats/1.png", "best, sks cat", 3),
        ("2-dogs/0.png", "a dog", 1),
    ]
    assert "2 images are the class's" in " ".join(notes_on(captioned_sources(toml)))
    classes = read_captioned(toml, class_sources(toml))
    assert [item.caption for item in classes] == ["cat", "cat"]


def test_kohyas_options_are_taken_where_nothing_else_is_asked(toml: Path) -> None:
    asked = build(StyleRequest, {"data": str(toml), "batch_size": 2}).settled()
    assert asked.images.resolution == 768
    assert asked.images.buckets
    assert asked.images.flip
    assert asked.spec.batch_size == 2  # asked for here
    (_, left, largest, *_) = notes_on(captioned_sources(toml))
    assert "left out: shuffle_caption = True, keep_tokens = 1, min_bucket_reso = 256" in left
    assert "keep_tokens = 2" in left
    assert "of resolution 512, 768 the largest is taken" in largest


def test_other_settings_are_other_data_and_moved_ones_the_same(toml: Path, tmp_path: Path) -> None:
    before = content_of(captioned_sources(toml))
    moved = shutil.copytree(toml.parent, tmp_path / "moved")
    assert content_of(captioned_sources(moved / "set.toml")) == before
    toml.write_text(TOML.replace("num_repeats = 3", "num_repeats = 4"))
    assert content_of(captioned_sources(toml)) != before


YAML = """
job: extension
config:
  name: my_lora
  process:
    - type: sd_trainer
      training_folder: output
      device: cuda:0
      trigger_word: sks
      network: {type: lora, linear: 16, linear_alpha: 8, conv: 4}
      save: {dtype: float16, save_every: 250, max_step_saves_to_keep: 4}
      datasets:
        - folder_path: cats
          caption_ext: txt
          caption_dropout_rate: 0.05
          shuffle_tokens: false
          resolution: [512, 768]
      train:
        batch_size: 1
        steps: 2000
        gradient_accumulation_steps: 2
        gradient_checkpointing: true
        train_text_encoder: false
        optimizer: adamw8bit
        noise_scheduler: flowmatch
        timestep_type: sigmoid
        lr: 1e-4
        dtype: bf16
        ema_config: {use_ema: true}
      model: {name_or_path: someone/some-base, is_flux: true, quantize: true}
      sample:
        sample_every: 250
        prompts: ["[trigger] on a chair", "a dog"]
        guidance_scale: 4
        sample_steps: 20
"""


@pytest.fixture
def yaml(tmp_path: Path) -> Path:
    folder(tmp_path / "cats", 3, {0: "a cat", 1: "a [trigger] cat", 2: "a sks cat"})
    (tmp_path / "train.yaml").write_text(YAML)
    return tmp_path / "train.yaml"


def test_ai_toolkits_yaml_gives_images_and_the_common_options(yaml: Path) -> None:
    captions = [item.caption for item in read_captioned(yaml)]
    assert captions == ["sks, a cat", "a sks cat", "a sks cat"]
    asked = build(StyleRequest, {"data": str(yaml), "steps": 7}).settled()
    spec = asked.spec
    assert (spec.rank, spec.alpha, spec.accumulation, spec.learning_rate) == (16, 8.0, 2, 1e-4)
    assert (spec.steps, spec.precision, spec.weighting) == (7, "bf16", "logit_normal")
    assert (spec.checkpoint_every, spec.checkpoint_limit, spec.caption_dropout) == (250, 4, 0.05)
    assert (asked.base.base, asked.title) == ("someone/some-base", "my_lora")
    assert asked.machine.gradient_checkpointing
    assert (asked.images.resolution, asked.images.buckets) == (768, True)
    assert asked.pictures.validation_prompts == ["sks on a chair", "a dog"]
    assert (asked.pictures.guidance, asked.pictures.picture_steps) == (4.0, 20)
    assert "7 steps on" in asked.line
    left = next(note for note in notes_on(captioned_sources(yaml)) if "left out" in note)
    for name in ("device = cuda:0", "network.conv = 4", "save.dtype", "train.optimizer = adamw8bit",
                 "train.ema_config", "model.quantize = True"):  # fmt: skip
        assert name in left
    assert "shuffle_tokens" not in left  # off, as here


def test_a_subject_takes_the_same_settings(yaml: Path) -> None:
    asked = build(SubjectRequest, {"data": str(yaml), "prior_weight": 0.5}).settled()
    assert (asked.spec.rank, asked.spec.prior_weight, asked.title) == (16, 0.5, "my_lora")


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("yaml", "type: lora,", "type: lokr,", "network.type of train.yaml is lokr; only lora"),
        ("yaml", "      save:", "      embedding: {tokens: 4}\n      save:", "pivotal tuning"),
        ("yaml", "- type: sd_trainer", "- type: slider", "process.type of train.yaml is slider"),
        ("yaml", "folder_path: cats", "folder_path: /no/such", "'/no/such', and there is no such"),
        ("yaml", "caption_ext: txt", "num_repeats: 99999", "num_repeats of train.yaml is 99999"),
        ("yaml", "caption_ext: txt", "caption_ext: json", "caption_ext of train.yaml is 'json'"),
        (
            "yaml",
            "network: {type",
            "netwerk: {type",
            "train.yaml has no network: it trains a whole",
        ),
        ("yaml", "config:", "konfig:", "train.yaml has no config; what ai-toolkit trains from"),
        ("yaml", "linear: 16", "linear: many", "rank is 'many'; it must be a whole number"),
        ("yaml", "job: extension", "job: *nowhere", "is not plain YAML: it has aliases"),
        ("yaml", "lr: 1e-4", "lr: -1", "learning_rate is -1.*; it must be above 0"),
        ("yaml", "resolution: [512, 768]", "resolution: big", "resolution of train.yaml is big"),
        ("toml", "[[datasets]]", "[[data]]", "set.toml has no .*datasets"),
        ("toml", 'image_dir = "cats"', 'image_dir = "gone"', "image_dir of set.toml is 'gone'"),
        ("toml", "num_repeats = 3", "num_repeats = 99999", "num_repeats of set.toml is 99999"),
        ("toml", "resolution = 512", "resolution = [[", "set.toml is no TOML: "),
        ("toml", "resolution = 512", "resolution = " + "[" * 9000, "set.toml is no TOML: "),
        ("toml", "resolution = 512", "resolution = " + "9" * 60, "whole number of 200 bits"),
        ("toml", "resolution = 512", "x" + ".y" * 10**5 + " = 1", "is no TOML: a name has more"),
        ("toml", "batch_size = 4", "batch_size = 'four'", "batch_size of set.toml is four; it"),
        ("toml", 'image_dir = "dogs"', 'metadata_file = "x.json"', "a subset of set.toml has meta"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_sentence(
    request: pytest.FixtureRequest, name: str, old: str, new: str, said: str
) -> None:
    path: Path = request.getfixturevalue(name)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match=said) as told:
        build(StyleRequest, {"data": str(path)}).settled()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["yaml", "toml"])
def test_damaged_settings_end_in_words(request: pytest.FixtureRequest, name: str) -> None:
    """Lines are lost, doubled and exchanged, values put in other places, letters changed."""
    path: Path = request.getfixturevalue(name)
    lines, stream = path.read_text().split("\n"), np.random.default_rng(0)
    odd = ["null", "[]", "{}", "-1", "1e999", "true", "''", "nan", "[[1]]", "0x10", "2026-01-01"]
    refused: list[str] = []
    for _ in range(80):
        text = list(lines)
        i, j = (int(k) for k in stream.integers(0, len(text), 2))
        match int(stream.integers(4)):
            case 0:
                del text[i]
            case 1:
                text[i], text[j] = text[j], text[i]
            case 2:
                sign = ":" if name == "yaml" else "="
                text[i] = f"{text[i].partition(sign)[0]}{sign} {odd[int(stream.integers(11))]}"
            case _:
                text[i] = text[i][::-1]
        path.write_text("\n".join(text))
        try:
            build(StyleRequest, {"data": str(path)}).settled()
            read_captioned(path)
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) > 10
    assert not any("\n" in told for told in refused)


def test_images_without_a_caption_or_words_are_named(toml: Path) -> None:
    toml.write_text(TOML.replace('class_tokens = "sks cat"', ""))
    with pytest.raises(ValueError, match=r"cats/1\.png has no caption: there is no \.cap file"):
        read_captioned(toml)


@pytest.mark.parametrize("name", ["gone.toml", "gone.yaml", "gone.yml"])
def test_settings_that_are_not_there_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"there is no data '{name}'"):
        require_data(name)
