"""`ddim score --per-class`: the labels of two sets, from their files to the text and the JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from ddim_core.features.extractor import PixelFeatures
from ddim_core.scores.distances.frechet import frechet_distance
from ddim_core.statistics.moments import FeatureMoments
from flows.cli.app import app

N = {"ours": {"cat": 45, "dog": 20}, "theirs": {"cat": 50, "dog": 50}}


def ddim(*words: str) -> Result:
    return CliRunner().invoke(app, ["score", *words, "--features", "pixels"])


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of grey images of 4x4 pixels, a folder per class, and a flat one."""
    root, random = tmp_path_factory.mktemp("sets"), np.random.default_rng(0)
    for name, classes in [*N.items(), ("flat", {".": 4})]:
        for of, n in classes.items():
            (root / name / of).mkdir(parents=True, exist_ok=True)
            for i in range(n):
                image = random.integers(0, 250, (4, 4), dtype=np.uint8)
                Image.fromarray(image).save(root / name / of / f"{i:02}.png")
    return root


def features(folder: Path) -> FeatureMoments:
    images = [np.asarray(Image.open(path))[..., None] for path in sorted(folder.glob("*.png"))]
    return FeatureMoments.from_features(PixelFeatures(4, 4, 1)(np.stack(images)))


def test_labelled_sets_are_scored_class_by_class_and_their_shares_compared(sets: Path) -> None:
    words = str(sets / "ours"), str(sets / "theirs"), "--per-class"
    found = json.loads(ddim(*words, "--json").stdout)["per_class"]
    cat, dog = found["classes"]
    by_hand = frechet_distance(features(sets / "ours" / "cat"), features(sets / "theirs" / "cat"))
    assert cat["fid"] == pytest.approx(by_hand, rel=1e-9)
    assert cat["fid_low"] < cat["fid"] < cat["fid_high"]
    assert cat["fid_bias"] > 0.0
    assert (dog["fid"], dog["n_images"], dog["n_reference"]) == (None, 20, 50)
    assert dog["why_no_fid"].endswith("too few for 16 features; it takes 40 of each")
    assert cat["share"] == 45 / 65
    assert cat["reference_share"] == 0.5
    assert found["shares_p_value"] < 0.05
    text = ddim(*words).stdout
    assert "cat   45 against 50   FID" in text
    assert "the classes come in other shares than those of the reference" in text


def test_a_set_without_labels_is_named_before_anything_is_scored(sets: Path) -> None:
    refused = ddim(str(sets / "ours"), str(sets / "flat"), "--per-class")
    assert refused.exit_code == 2
    assert f"a class for each image, which {sets / 'flat'} does not have" in refused.stderr
    alone = ddim(str(sets / "ours"), "--per-class", "--save-stats", "a.npz")
    assert "per-class scores need two sets" in alone.stderr
