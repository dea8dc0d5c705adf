"""`ddim score`: the peers' numbers, everyone's files, and one sentence where it cannot be."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from ddim_core.features.card_network import CardNetwork
from ddim_core.images.one_by_one import as_stored, native_images
from flows.cli.app import app
from tests.networks import pytorch_fid_network, save_clip, save_fid_inception

RANDOM = np.random.default_rng(0)
# Two kinds of images that differ, so that the distance is not what rounding leaves of it.
DARK = [RANDOM.integers(0, 120, (24, 32, 3), dtype=np.uint8) for _ in range(4)]
BRIGHT = [RANDOM.integers(90, 256, (20, 20, 3), dtype=np.uint8) for _ in range(4)]


def ddim(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def scored(*words: str) -> dict[str, Any]:
    done = ddim("score", *words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    root = tmp_path_factory.mktemp("images")
    for name, images in (("dark", DARK), ("bright", BRIGHT)):
        (root / name).mkdir()
        for i, image in enumerate(images):
            Image.fromarray(image).save(root / name / f"{i}.png")
    return str(root / "dark"), str(root / "bright")


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_fid_inception(tmp_path_factory.mktemp("inception") / "weights.pth")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("clip"))


def in_their_span(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The same two sets of rows in the few directions that they span: a rotation, which no
    Frechet distance sees, and which spares the peers their square roots of 2048 x 2048."""
    rows = np.concatenate([x, y]).astype(np.float64)
    basis, _ = np.linalg.qr(rows.T)
    return rows[: len(x)] @ basis, rows[len(x) :] @ basis


def test_png_folders_score_as_torch_fidelity_scores_them(
    folders: tuple[str, str], inception: Path
) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    network = FeatureExtractorInceptionV3(
        "oracle", ["2048"], feature_extractor_weights_path=str(inception)
    )
    sets = [network(torch.from_numpy(np.stack(s)).permute(0, 3, 1, 2))[0].numpy()
            for s in (DARK, BRIGHT)]  # fmt: skip
    statistics = [{"mu": x.mean(axis=0), "sigma": np.cov(x, rowvar=False)}
                  for x in in_their_span(*sets)]  # fmt: skip
    expected = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    found = scored(*folders, "--as", "torch-fidelity", "--feature-weights", str(inception))
    assert found["fid"] == pytest.approx(expected, rel=1e-6)
    assert found["as"] == "torch-fidelity"
    theirs = found["as_scores"]
    assert theirs["frechet_inception_distance"]["value"] == found["fid"]
    assert theirs["kernel_inception_distance_mean"]["value"] == found["kid"]
    assert found["protocol"]["resize"] == "tf1"
    assert (found["n_images"], found["n_reference"]) == (4, 4)


def test_png_folders_score_as_pytorch_fid_scores_them(
    folders: tuple[str, str], inception: Path
) -> None:
    from pytorch_fid.fid_score import calculate_frechet_distance

    network = pytorch_fid_network(inception)
    with torch.no_grad():
        sets = [network(torch.from_numpy(np.stack(s)).permute(0, 3, 1, 2) / 255)[0][:, :, 0, 0]
                for s in (DARK, BRIGHT)]  # fmt: skip
    a, b = in_their_span(*(x.numpy() for x in sets))
    expected = calculate_frechet_distance(
        a.mean(axis=0), np.cov(a, rowvar=False), b.mean(axis=0), np.cov(b, rowvar=False)
    )
    found = scored(*folders, "--as", "pytorch-fid", "--feature-weights", str(inception))
    assert found["as_scores"]["fid"]["value"] == pytest.approx(expected, rel=1e-6)
    assert found["protocol"]["scaling"] == "(v - [127.5]) / [127.5]"


def test_every_form_of_the_same_images_scores_the_same(
    folders: tuple[str, str], clip: Path, tmp_path: Path
) -> None:
    from datasets import Dataset, Features
    from datasets import Image as ImageColumn

    same = Dataset.from_dict(
        {"image": [Image.fromarray(image) for image in DARK]}, Features({"image": ImageColumn()})
    )
    same.to_parquet(tmp_path / "dark.parquet")
    same.save_to_disk(str(tmp_path / "saved"))
    arrow = next((tmp_path / "saved").glob("*.arrow"))
    np.savez(tmp_path / "dark.npz", np.stack(DARK))
    words = ("--features", "clip-vit-b-32", "--feature-weights", str(clip))
    first = scored(*folders, *words)
    assert first["cmmd_low"] <= first["cmmd"] <= first["cmmd_high"]
    for place in ("dark.parquet", "saved", "dark.npz", str(arrow)):
        other = scored(str(tmp_path / place), folders[1], *words)
        assert {k: v for k, v in other.items() if k != "generated"} == {
            k: v for k, v in first.items() if k != "generated"
        }


def test_statistics_are_saved_and_scored_like_the_images(
    folders: tuple[str, str], clip: Path, tmp_path: Path
) -> None:
    words = ("--features", "clip-vit-b-32", "--feature-weights", str(clip))
    stats = str(tmp_path / "bright.npz")
    whole = scored(*folders, *words, "--save-stats", stats)
    assert scored(folders[0], stats, *words)["fid"] == pytest.approx(whole["fid"], rel=1e-9)
    alone = str(tmp_path / "dark.npz")
    assert ddim("score", folders[0], *words, "--save-stats", alone).exit_code == 0
    both = scored(alone, stats)  # needs no network
    assert both["fid"] == pytest.approx(whole["fid"], rel=1e-9)
    assert (
        both["protocol"]["extractor_weights_digest"]
        == whole["protocol"]["extractor_weights_digest"]
    )
    assert any("no interval" in note for note in both["notes"])
    refused = ddim("score", folders[0], stats, *words, "--resize", "tf1")
    assert refused.exit_code == 2
    assert "different protocols: resize is 'tf1' and 'clean'" in refused.stderr


def test_the_text_shows_value_interval_counts_and_protocol(
    folders: tuple[str, str], clip: Path
) -> None:
    done = ddim("score", *folders, "--features", "clip-vit-b-32", "--feature-weights", str(clip))
    assert done.exit_code == 0, done.output
    for wanted in ("FID", "[", "N = 4 against 4", "clip-vit-b-32 features", "clean: bicubic",
                   "native sizes differ (24x32 and 20x20)", "CMMD"):  # fmt: skip
        assert wanted in done.stdout
    assert re.search(r"KID x 1000 +\S+ \[\S+, \S+\] +unbiased, subsets of 4,", done.stdout)


def test_a_second_score_takes_its_features_from_the_store(
    folders: tuple[str, str], clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*folders, "--features", "clip-vit-b-32-torch", "--feature-weights", str(clip))
    first = scored(*words)
    monkeypatch.setattr(
        "tasks.score_command.sets.features_of", lambda *_: pytest.fail("the network has run")
    )
    assert scored(*words) == first
    monkeypatch.undo()
    monkeypatch.setattr("ddim_core.features.card_network.BATCH", 4)
    seen, plain = list[int](), CardNetwork.__call__
    monkeypatch.setattr(CardNetwork, "__call__", lambda *told: (seen.append(1), plain(*told))[1])
    on_card = scored(*words, "--device", "cpu:0")  # a CPU that stands in for a card
    assert len(seen) == 2
    assert on_card["fid"] == pytest.approx(first["fid"], rel=1e-4)
    told = on_card["protocol"]["versions"].items() - first["protocol"]["versions"].items()
    assert told == {("features in float32", "torch on cpu")}


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["{dark}"], "one set alone has no distance; give a second one, or --save-stats FILE"),
        (["{dark}", "/no/such"], "there is no data set '/no/such'"),
        (["{dark}", "/no/such.npz"], "there is no file '/no/such.npz'"),
        (["{dark}", "abcdef"], "'abcdef' is no cell: no cell of the table begins so"),
        (["{dark}", "{bright}", "--features", "vgg"], "features is 'vgg'; it must be one of"),
        (["{dark}", "{bright}", "--features", "classifier"], "features belong to a grid"),
        (["{dark}", "{bright}", "--split", "test"], "has no split 'test'; it has all"),
        (["{dark}", "{bright}", "--features", "pixels"], "2304 features and"),
        (["{dark}", "{bright}", "--features", "pixels", "--resolution", "0"], "resolution is 0"),
        (["{dark}", "{bright}", "--save-stats", "stats"], "its name must end in .npz"),
        (["{dark}", "{bright}", "--features", "clip-vit-b-32"], "'openai/clip-vit-base-patch32'"),
        (["{dark}", "--matrix", "--save-stats", "a.npz"], "a matrix of protocols needs two sets"),
        (["{dark}", "{bright}", "--device", "gpu"], "it must be cpu, cuda, mps or auto"),
    ],
)
def test_what_cannot_be_scored_is_one_sentence(
    folders: tuple[str, str], words: list[str], wanted: str
) -> None:
    dark, bright = folders
    refused = ddim("score", *(w.format(dark=dark, bright=bright) for w in words))
    assert refused.exit_code == 2, refused.output
    assert wanted in refused.stderr
    lines = refused.stderr.strip().splitlines()
    at_work = ("ddim score: reading", "score: ", "still ")  # where it takes long enough to be said
    assert [line[:6] for line in lines if not line.startswith(at_work)] == ["ddim: "]


@pytest.mark.parametrize("form", ["folder", "npz"])
def test_a_set_of_one_image_is_named_with_the_number_that_is_needed(
    folders: tuple[str, str], tmp_path: Path, form: str
) -> None:
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    Image.fromarray(DARK[0]).save(lonely / "a.png")
    if form == "npz":
        lonely = tmp_path / "lonely.npz"
        np.savez(lonely, DARK[0][None])
    for places in ((str(lonely), folders[0]), (folders[0], str(lonely))):
        refused = ddim("score", *places, "--features", "pixels", "--resolution", "8")
        if form == "npz":
            refused = ddim("score", *places, "--features", "pixels")
        assert refused.exit_code == 2
        assert f"{lonely} holds 1 image; a distance needs at least 2" in refused.stderr


def test_resolution_prepares_both_sets_as_for_a_model(folders: tuple[str, str]) -> None:
    found = scored(*folders, "--features", "pixels", "--resolution", "8")
    assert found["n_features"] == 8 * 8 * 3
    assert found["protocol"]["data_resize"] == "pillow-bicubic to 8x8"


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--resolution", "8"], "resolution and as-stored are for files of images"),
        (["--as-stored"], "resolution and as-stored are for files of images"),
        (["--split", "test"], "y.npz has no splits"),
        (["--features", "pixels"], "features, weights, resize and device are for images"),
        (["--device", "cpu:0"], "features, weights, resize and device are for images"),
        (["--matrix"], "a matrix of protocols needs two sets of images"),
    ],
)
def test_what_would_change_nothing_of_numbers_is_refused(
    tmp_path: Path, words: list[str], wanted: str
) -> None:
    x, y = str(tmp_path / "x.npz"), str(tmp_path / "y.npz")
    np.savez(x, features=RANDOM.normal(size=(9, 3)))
    np.savez(y, features=RANDOM.normal(size=(9, 3)))
    refused = ddim("score", x, y, *words)
    assert refused.exit_code == 2
    assert wanted in refused.stderr
    protocol = scored(x, y)["protocol"]
    assert protocol["data_resize"] is protocol["split"] is None  # no claim where nothing is known


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("RGB", "png"), ("L", "png"), ("RGBA", "png"), ("P", "png"), ("LA", "png"), ("RGB", "jpg")],
)
def test_files_are_read_as_the_peers_read_them_where_that_is_asked_for(
    tmp_path: Path, mode: str, suffix: str
) -> None:
    from pytorch_fid.fid_score import ImagePathDataset
    from torch_fidelity.datasets import ImagesPathDataset

    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    bands = Image.new(mode, (1, 1)).getbands()
    shape = (13, 7, len(bands)) if len(bands) > 1 else (13, 7)
    pixels = RANDOM.integers(0, 256, shape, dtype=np.uint8)
    image = Image.fromarray(DARK[0]).quantize(9) if mode == "P" else Image.fromarray(pixels, mode)
    path = tmp_path / f"image.{suffix}"
    image.save(path, exif=exif)
    stored = native_images(str(tmp_path), read=as_stored)
    (ours,) = stored
    assert np.array_equal(ours.transpose(2, 0, 1), ImagesPathDataset([str(path)])[0])
    assert np.array_equal(ours, np.asarray(ImagePathDataset([path])[0]))
    assert stored.n_otherwise == 1
    upright = native_images(str(tmp_path))
    (turned,) = upright
    assert turned.shape[:2] == ours.shape[1::-1]
    assert upright.n_otherwise == 1


def test_opaque_images_are_read_in_one_way_and_transparent_ones_are_told_of(
    tmp_path: Path,
) -> None:
    for name, alpha in (("opaque", 255), ("clear", 9)):
        (tmp_path / name).mkdir()
        for i, pixels in enumerate(DARK):
            image = Image.fromarray(pixels)
            image.putalpha(alpha)
            image.save(tmp_path / name / f"{i}.png")
    clear, opaque = str(tmp_path / "clear"), str(tmp_path / "opaque")
    laid = scored(clear, opaque, "--features", "pixels", "--resolution", "4")
    assert laid["fid"] > 0.1
    assert [n for n in laid["notes"] if "4 images of" in n and "laid over white" in n]
    stored = scored(clear, opaque, "--features", "pixels", "--resolution", "4", "--as-stored")
    assert stored["fid"] == pytest.approx(0.0, abs=1e-12)
    assert len([n for n in stored["notes"] if "read as stored" in n]) == 1
    assert any("both sets are the same images" in note for note in stored["notes"])


def test_the_matrix_shows_the_same_images_by_every_resize_and_by_pixels(
    tmp_path: Path, inception: Path
) -> None:
    for name, images in (("a", DARK), ("b", BRIGHT)):
        np.savez(tmp_path / f"{name}.npz", np.stack([image[:20, :20] for image in images]))
    words = (str(tmp_path / "a.npz"), str(tmp_path / "b.npz"), "--features", "inception-v3-clean",
             "--feature-weights", str(inception))  # fmt: skip
    whole = scored(*words, "--matrix")
    lines = {(line["extractor"], line["resize"]): line for line in whole["matrix"]}
    assert list(lines) == [
        ("inception-v3", "clean"), ("inception-v3", "tf1"), ("inception-v3", "torch"),
        ("pixels", "none"),
    ]  # fmt: skip
    assert lines["inception-v3", "clean"]["fid"] == whole["fid"]
    alone = scored(*words[:2], "--features", "inception-v3-tf1", *words[4:])
    assert lines["inception-v3", "tf1"]["fid"] == alone["fid"] != whole["fid"]
    assert len({line["fid"] for line in lines.values()}) == 4
    text = ddim("score", *words, "--matrix").stdout
    assert "never compare one line with another" in text
    assert text.count("inception-v3 ") >= 3


def test_colour_belongs_to_a_set_and_not_to_its_first_image(tmp_path: Path) -> None:
    grey = np.repeat(RANDOM.integers(0, 256, (3, 8, 8, 1), dtype=np.uint8), 3, axis=3)
    colour = RANDOM.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    sets = {"mixed": [*grey, *colour], "also": [grey[0], colour[0], *grey], "plain": [*grey]}
    for name, images in sets.items():
        (tmp_path / name).mkdir()
        for i, image in enumerate(images):
            pixels = image if i else image[..., 0]  # mode L comes first
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
        np.savez(tmp_path / "x.npz", images=np.stack(images))
        (tmp_path / "x.npz").rename(tmp_path / f"{name}.NPZ")
    words = ("--features", "pixels")
    for one, other, features in (
        ("mixed", "also", 192), ("plain", "mixed", 192), ("plain", "plain", 64),
    ):  # fmt: skip
        found = scored(str(tmp_path / one), str(tmp_path / other), *words)
        assert found["n_features"] == features
        arrays = scored(str(tmp_path / f"{one}.NPZ"), str(tmp_path / f"{other}.NPZ"), *words)
        assert arrays["fid"] == found["fid"]
    stats = str(tmp_path / "stats.npz")
    assert ddim("score", str(tmp_path / "mixed"), *words, "--save-stats", stats).exit_code == 0
    assert scored(str(tmp_path / "plain"), stats, *words)["n_features"] == 192
    (tmp_path / "mixed" / "notes.txt").write_text("no image")
    told = scored(str(tmp_path / "mixed"), str(tmp_path / "also"), *words)["notes"]
    assert any("left out because no images (1): notes.txt" in note for note in told)


def test_features_of_an_npy_are_scored_like_those_of_an_npz(tmp_path: Path) -> None:
    x, y = RANDOM.normal(size=(9, 3)), RANDOM.normal(size=(9, 3))
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", features=x)
    np.savez(tmp_path / "y.npz", features=y)
    y_name = str(tmp_path / "y.npz")
    one, other = (scored(str(tmp_path / name), y_name) for name in ("x.npy", "x.npz"))
    assert one["fid"] == other["fid"]
