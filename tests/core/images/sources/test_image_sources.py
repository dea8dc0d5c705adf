"""Every form of data set that people have: splits, classes, captions, channels, fingerprints."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ddim_core.diffusion.specs import ImageSpec
from ddim_core.images.emoji import emoji_files
from ddim_core.images.load import load_images, open_source, splits_of
from ddim_core.images.sources.colour import composite
from ddim_core.images.summary import survey
from tests.picture_files import afhq, captioned, cifar, drawn, encoded, picture

FORMS = ["afhq", "cifar", "captioned", "saved", "hub folder", "digits"]


def made(form: str, place: Path) -> str:
    """Makes a data set of a form at a place; returns its name."""
    from datasets import Dataset, DatasetDict

    if form == "afhq":
        return str(afhq(place / "animals"))
    if form == "cifar":
        place.mkdir(parents=True, exist_ok=True)
        return str(cifar(place / "test.parquet"))
    if form == "captioned":
        return str(captioned(place / "style"))
    if form == "saved":
        place.mkdir(parents=True, exist_ok=True)
        both = Dataset.from_parquet(
            str(cifar(place / "x.parquet")), cache_dir=str(place / "cache"), keep_in_memory=True
        )
        DatasetDict({"train": both, "test": both}).save_to_disk(place / "saved")
        return str(place / "saved")
    if form == "hub folder":
        (place / "hub" / "data").mkdir(parents=True)
        cifar(place / "hub" / "data" / "train-00000-of-00001.parquet")
        cifar(place / "hub" / "data" / "test-00000-of-00001.parquet", 6)
        (place / "hub" / "README.md").write_text("---\nlicense: mit\n---\n# Pictures\n")
        return str(place / "hub")
    return "digits"


@pytest.mark.parametrize(
    ("form", "splits", "classes", "captions"),
    [
        ("afhq", ["train", "val"], ("cat", "dog", "wild"), None),
        ("cifar", ["test"], ("airplane", "bird", "cat"), None),
        ("captioned", ["train"], (), ("picture 0", "picture 1", "picture 2", "picture 3")),
        ("saved", ["train", "test"], ("airplane", "bird", "cat"), None),
        ("hub folder", ["train", "test"], ("airplane", "bird", "cat"), None),
    ],
)
def test_each_form_has_its_splits_classes_and_captions(
    tmp_path: Path,
    form: str,
    splits: list[str],
    classes: tuple[str, ...],
    captions: tuple[str, ...] | None,
) -> None:
    dataset = made(form, tmp_path)
    assert splits_of(dataset) == ["all", *splits]
    got = load_images(dataset, splits[0], 16)
    assert got.images.shape[1:] == (16, 16, 3)
    assert got.class_names == classes
    assert got.captions == captions
    assert (got.labels is None) == (not classes)
    assert got.licence == ("mit" if form == "hub folder" else "")


@pytest.mark.parametrize("form", FORMS)
def test_copies_at_other_places_have_one_fingerprint(tmp_path: Path, form: str) -> None:
    dataset = made(form, tmp_path / "one")
    copy = dataset
    if form != "digits":
        shutil.copytree(tmp_path / "one", tmp_path / "another" / "place")
        copy = dataset.replace(str(tmp_path / "one"), str(tmp_path / "another" / "place"))
        for file in (tmp_path / "another").rglob("*"):
            os.utime(file, (1, 1))
    assert open_source(copy).content() == open_source(dataset).content()
    sets = [load_images(name, "all", None) for name in (dataset, copy)]
    assert sets[0].fingerprint == sets[1].fingerprint
    assert [s.fingerprint for s in survey(dataset).splits] == [
        s.fingerprint for s in survey(copy).splits
    ]


@pytest.mark.parametrize("changed", ["pixel", "class", "caption", "order"])
def test_any_change_of_content_gives_another_fingerprint(tmp_path: Path, changed: str) -> None:
    folder = captioned(tmp_path / "a") if changed == "caption" else afhq(tmp_path / "a", each=4)
    files = sorted(folder.rglob("*.jpg"))
    if changed == "pixel":  # one level of one channel, which a resized image may not show
        files = [file.replace(file.with_suffix(".png")) for file in files]
        pixels = np.asarray(Image.open(files[0])).copy()
        files[0].write_bytes(encoded(pixels))
    before, content = load_images(str(folder), "all", 4), open_source(str(folder)).content()
    if changed == "pixel":
        pixels[3, 5, 1] ^= 1
        files[0].write_bytes(encoded(pixels))
    elif changed == "class":
        shutil.move(files[-1], folder / "val" / "dog" / files[-1].name)
    elif changed == "caption":
        listing = folder / "train" / "metadata.jsonl"
        listing.write_text(listing.read_text().replace("picture 0", "picture 7"))
    else:
        first, second = files[0].read_bytes(), files[1].read_bytes()
        files[0].write_bytes(second)
        files[1].write_bytes(first)
    assert load_images(str(folder), "all", 4).fingerprint != before.fingerprint
    assert open_source(str(folder)).content() != content


def test_a_class_keeps_its_label_in_a_split_without_the_others(tmp_path: Path) -> None:
    folder = afhq(tmp_path / "animals")
    shutil.rmtree(folder / "val" / "cat")
    shutil.rmtree(folder / "val" / "dog")
    labels = load_images(str(folder), "val", 8).labels
    assert labels is not None
    assert labels.tolist() == [2, 2]


def test_grey_images_stay_grey_and_become_what_a_checkpoint_wants(tmp_path: Path) -> None:
    grey = picture(0)[..., 0]
    for k, form in enumerate(("PNG", "JPEG")):
        (tmp_path / f"{k}.{form.lower()}").write_bytes(encoded(grey, form))
    assert load_images(str(tmp_path)).images.shape == (2, 24, 24, 1)
    as_rgb = load_images(str(tmp_path), channels=3).images
    assert np.array_equal(as_rgb[0], np.stack([grey] * 3, axis=-1))
    (tmp_path / "2.png").write_bytes(encoded(picture(1)))
    assert load_images(str(tmp_path)).images.shape == (3, 24, 24, 3)
    as_grey = load_images(str(tmp_path), channels=1).images
    assert as_grey.shape == (3, 24, 24, 1)
    assert np.array_equal(as_grey[0, ..., 0], grey)
    assert np.array_equal(as_grey[2, ..., 0], np.asarray(Image.fromarray(picture(1)).convert("L")))


def test_transparent_pixels_show_the_background(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4] = [200, 10, 10, 255]
    (tmp_path / "half.png").write_bytes(encoded(pixels))
    white = load_images(str(tmp_path)).images[0]
    blue = load_images(str(tmp_path), spec=ImageSpec(background="blue")).images[0]
    assert white[0, 0].tolist() == blue[0, 0].tolist() == [200, 10, 10]
    assert white[7, 7].tolist() == [255, 255, 255]
    assert blue[7, 7].tolist() == [0, 0, 255]


def test_emoji_are_the_drawings_on_a_colour_with_categories_and_names() -> None:
    spec = ImageSpec(background="skyblue", skin_tones=False)
    got = load_images("emoji", "test", None, spec=spec)
    assert got.images.shape == (400, 72, 72, 3)
    assert len(got.class_names) == 10
    assert "CC-BY 4.0" in got.licence
    drawings = {about.words: (about, file) for about, file in emoji_files(skin_tones=False)}
    assert got.captions is not None
    chosen = [drawings[words] for words in got.captions[:20]]
    on_sky = composite(np.stack([drawn(file) for _, file in chosen]), "skyblue")
    assert np.array_equal(got.images[:20], on_sky)
    assert got.labels is not None
    categories = [about.category for about, _ in chosen]
    assert [got.class_names[k] for k in got.labels[:20]] == categories


def test_no_skin_tone_of_a_training_emoji_is_held_out() -> None:
    source = open_source("emoji")
    rows = {split: list(source.rows(split)) for split in ("all", "train", "test")}
    assert len(rows["all"]) == 4009 == len(rows["train"]) + len(rows["test"])
    plain = {  # without what follows the comma: the tone
        split: {str(row.caption).split(",")[0] for row in rows[split]} for split in rows
    }
    assert not plain["train"] & plain["test"]


@pytest.mark.parametrize("resolution", [16, 64])
def test_emoji_are_resized_and_never_enlarged(resolution: int) -> None:
    spec = ImageSpec(skin_tones=False)
    assert load_images("emoji", "test", resolution, spec=spec).images.shape[1] == resolution
    with pytest.raises(ValueError, match="at most 72"):
        load_images("emoji", "test", 73)


def test_links_and_odd_names_are_read_once_each(tmp_path: Path) -> None:
    folder = tmp_path / "odd [a-z]* #1?"
    (folder / "ünï cödé").mkdir(parents=True)
    for k, name in enumerate(("a\nb.png", "ünï cödé/%00.PNG", "-rf.jpg", "half \udce9.png")):
        (folder / name).write_bytes(encoded(picture(k)))
    (folder / ".hidden.png").write_bytes(b"not an image, and not looked at")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "linked.png").write_bytes(encoded(picture(9)))
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "circle").symlink_to(folder)
    got = load_images(str(folder))
    assert len(got) == 5
    assert got.name == folder.name
    assert json.loads(json.dumps(got.name)) == got.name


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("{", "line 5 of train/metadata.jsonl is no JSON object with a file_name"),
        ('{"text": "x"}', "line 5"),
        ('{"file_name": 3, "text": "x"}', "must have texts"),
        ('{"file_name": "9.png", "text": "x"}', "names '9.png', which is not there"),
    ],
)
def test_a_bad_line_of_captions_is_named(tmp_path: Path, line: str, wanted: str) -> None:
    folder = captioned(tmp_path / "style")
    with (folder / "train" / "metadata.jsonl").open("a") as listing:
        listing.write(line + "\n")
    with pytest.raises(ValueError, match=wanted.replace(".", r"\.")):
        load_images(str(folder), "train", 8)


def test_an_image_without_the_caption_that_others_have_is_refused(tmp_path: Path) -> None:
    folder = captioned(tmp_path / "style")
    (folder / "train" / "0004.png").write_bytes(encoded(picture(4)))
    with pytest.raises(ValueError, match=r"1 of 5 images have no caption.*train/0004\.png"):
        load_images(str(folder), "train", 8)


def test_a_table_never_makes_us_read_files_outside_of_it(tmp_path: Path) -> None:
    (tmp_path / "private.png").write_bytes(encoded(picture(0)))
    cells = [{"bytes": None, "path": str(tmp_path / "private.png")}]
    pq.write_table(pa.table({"image": cells}), tmp_path / "set.parquet")
    with pytest.raises(ValueError, match="names a file outside"):
        load_images(str(tmp_path / "set.parquet"))


def test_code_of_a_data_set_is_never_run(tmp_path: Path) -> None:
    folder = tmp_path / "script"
    folder.mkdir()
    proof = tmp_path / "proof"
    (folder / "script.py").write_text(f"open({str(proof)!r}, 'w').write('run')")
    (folder / "x.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match="script"):
        load_images(str(folder))
    assert not proof.exists()


def test_a_data_set_of_the_hub_that_is_out_of_reach_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'nobody/nothing-here' cannot be opened: .*reach"):
        load_images("nobody/nothing-here")
