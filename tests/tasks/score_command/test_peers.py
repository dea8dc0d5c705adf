"""`ddim score --as`: whole protocols, and other people's files of references."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ddim_core.features.model_folder import folder_digest
from ddim_core.features.registry import EXTRACTORS
from ddim_core.scores.set_score import FeatureSet, score_pair
from ddim_core.statistics.reference_files import statistics_for
from tasks.score_command.sets import open_place
from tests.networks import save_dinov2_of_its_authors, save_fid_inception
from tests.tasks.score_command.test_run import ddim, scored

GOLDEN = Path(__file__).parents[2] / "golden"
with np.load(GOLDEN / "peers.npz") as archive:
    TOLD = json.loads(str(archive["meta"]))
    A, B = archive["a"], archive["b"]
    DINOV2 = {
        key.removeprefix("dinov2_0/"): torch.from_numpy(archive[key]).float()
        for key in archive.files
        if key.startswith("dinov2_0/")
    }


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    root = tmp_path_factory.mktemp("sets")
    for name, images in (("a", A), ("b", B)):
        np.savez(root / f"{name}.npz", images)
    return str(root / "a.npz"), str(root / "b.npz")


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_dinov2_of_its_authors(DINOV2, tmp_path_factory.mktemp("dinov2")))


def test_adms_whole_table_of_two_files_of_images(sets: tuple[str, str], tmp_path: Path) -> None:
    weights = save_fid_inception(tmp_path / "weights.pth")
    found = scored(*sets, "--as", "adm", "--feature-weights", str(weights))
    assert found["as"] == "adm"
    theirs = {name: number["value"] for name, number in found["as_scores"].items()}
    assert set(theirs) == {"FID", "Inception Score", "Precision", "Recall", "sFID"}
    # 12 and 10 images of 2048 features: the peer takes the root of a product that is singular, in
    # which rounding leaves sqrt(eps) along each of 2,000 directions.
    for name in ("FID", "sFID"):
        assert theirs[name] == pytest.approx(TOLD["adm"][name], rel=1e-4), name
    assert theirs["Inception Score"] == pytest.approx(TOLD["adm"]["Inception Score"], rel=1e-6)
    for name in ("Precision", "Recall"):  # TensorFlow's networks round otherwise: an image or none
        assert theirs[name] == pytest.approx(TOLD["adm"][name], abs=0.11), name
    spaces = {name: told["layer"] for name, told in found["as_protocols"].items()}
    assert spaces == {"inception-v3": "pool, 2048", "inception-v3-spatial": "mixed_6/conv, 2023"}


def test_edm2s_distance_of_images_against_its_pickle(sets: tuple[str, str], dinov2: str) -> None:
    words = ("--as", "edm2", "--features", "dinov2-vit-l-14", "--feature-weights", dinov2)
    expected = pytest.approx(TOLD["edm2"]["fd_dinov2"], rel=1e-5)  # a root of a singular product
    for reference in (sets[1], str(GOLDEN / "edm2_stats.pkl")):
        found = scored(sets[0], reference, *words)
        assert found["as_scores"]["fd_dinov2"]["value"] == expected
        assert found["n_reference"] == len(B)
    assert found["kid"] is None


def test_dgm_evals_numbers_stand_in_the_text_too(sets: tuple[str, str], dinov2: str) -> None:
    done = ddim("score", *sets, "--as", "dgm-eval", "--feature-weights", dinov2)
    assert done.exit_code == 0, done.output
    for name in ("fd ", "kd_value", "precision", "recall", "density", "coverage", "vendi"):
        assert f"\n  {name}" in done.output
    assert "as dgm-eval (layer6ai-labs/dgm-eval 74c79f7)" in done.output


def test_adms_reference_gives_moments_of_all_and_images_of_some(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 3))
    moments = {"mu": rows.mean(axis=0), "sigma": np.cov(rows, rowvar=False)}
    place = tmp_path / "ref.npz"
    np.savez(place, arr_0=B, mu_s=np.zeros(2), sigma_s=np.eye(2), **moments)
    found = {name: open_place(str(place), extractor=name) for name in ("", *EXTRACTORS)}
    assert all(one.has_images for one in found.values())
    sizes = {name: one.beside.mu.size for name, one in found.items() if one.beside}
    # These moments are of Inception, whatever else the images are sent to.
    assert sizes == {"": 3, "inception-v3": 3, "inception-v3-spatial": 2}
    alone = tmp_path / "alone.npz"  # as --save-stats writes those of any one extractor
    np.savez(alone, **moments)
    assert open_place(str(alone), extractor="inception-v3-spatial").beside is None
    statistics = statistics_for(alone, "inception-v3-spatial")
    assert statistics is not None
    assert statistics.mu.size == 3
    generated = FeatureSet("a", [rows[:20] + 0.5])
    beside = found[""].beside
    assert beside is not None
    both = score_pair(generated, FeatureSet("ref", [rows[20:]], given=beside)).score
    assert both.fid == pytest.approx(score_pair(generated, FeatureSet("ref", [rows])).score.fid)
    assert both.kid == score_pair(generated, FeatureSet("ref", [rows[20:]])).score.kid


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--as", "edm"), "did you mean edm2"),
        (("--as", "adm", "--features", "pixels"), "it must be one of inception-v3,"),
        (("--as", "adm", "--resize", "clean"), "but adm has its own"),
        (("--as", "adm", "--matrix"), "and no --as"),
    ],
)
def test_what_a_peer_cannot_be_asked_is_refused(
    sets: tuple[str, str], words: tuple[str, ...], said: str
) -> None:
    done = ddim("score", *sets, *words)
    assert done.exit_code != 0
    assert said in " ".join(done.output.split())


def test_features_that_cannot_be_the_peers_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        np.savez(tmp_path / f"{name}.npz", features=np.random.default_rng(0).normal(size=(40, 8)))
    done = ddim("score", str(tmp_path / "a.npz"), str(tmp_path / "b.npz"), "--as", "pytorch-fid")
    assert done.exit_code == 2
    assert "has 8 features, and inception-v3 has 2048" in " ".join(done.output.split())


def test_any_encoder_of_transformers_is_named_by_its_folder(
    sets: tuple[str, str], dinov2: str
) -> None:
    found = scored(*sets, "--features", f"transformers:{dinov2}")
    assert found["protocol"]["extractor"] == f"transformers:{Path(dinov2).name}"
    assert found["protocol"]["extractor_weights_digest"] == folder_digest(Path(dinov2))
    assert found["protocol"]["resize_filter"].endswith("to 518x518")
