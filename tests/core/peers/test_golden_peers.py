"""Peers' numbers against what their own code said, recorded by `tests/peers/record.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddim_core.features.clip_dino import Dinov2Features
from ddim_core.features.resize import ROUNDED, RULES, resized, resized_by_torch
from ddim_core.peers.catalogue import PEERS, peer_named
from ddim_core.peers.half_precision import half_precision_recall
from ddim_core.peers.numbers import Sides, clean_fid, dgm_eval
from ddim_core.scores.alone.vendi import vendi_score
from ddim_core.scores.distances.cmmd import cmmd, unit
from ddim_core.scores.further_scores import FurtherScores
from ddim_core.scores.set_score import FeatureSet, score_pair
from ddim_core.statistics.reference_files import statistics_for
from ddim_core.statistics.rows import FeatureRows
from tests.networks import save_dinov2_of_its_authors

GOLDEN = Path(__file__).parents[2] / "golden"
with np.load(GOLDEN / "peers.npz") as archive:
    TOLD: dict[str, Any] = json.loads(str(archive["meta"]))
    ARRAYS = {key: archive[key] for key in archive.files if key != "meta"}
X, Y = (ARRAYS[key].astype(np.float32) for key in "xy")
# The same float32 network in another order of summation.
SAME_NETWORK = 1e-5


@pytest.fixture(scope="module")
def sides() -> Sides:
    generated, reference = FeatureSet("x", np.array_split(X, 5)), FeatureSet("y", [Y])
    return Sides(generated, reference, score_pair(generated, reference).score, FurtherScores())


def test_dgm_evals_numbers_of_given_features(sides: Sides) -> None:
    told, found = TOLD["dgm-eval"], dgm_eval(sides)
    for name in ("fd", "vendi", "precision", "recall", "density", "coverage"):
        # Measured 2e-13; the peer's square root of a product of covariances rounds most.
        assert found[name].value == pytest.approx(told[name], rel=1e-11), name
    # Sums of a million kernel values in another order; measured 2e-14.
    for name in ("kd_value", "kd_variance"):
        assert found[name].value == pytest.approx(told[name], rel=1e-11), name
    for number in found.values():
        assert number.low is None or number.low <= number.value <= number.high


def test_clean_fids_numbers_of_given_features(sides: Sides) -> None:
    found = clean_fid(sides)
    assert found["fid"].value == pytest.approx(TOLD["clean-fid"]["fid"], rel=1e-10)
    # It multiplies in float32, eps 1.2e-7, and most of the kernel's means cancels; measured 8e-7.
    assert found["kid"].value == pytest.approx(TOLD["clean-fid"]["kid"], rel=1e-5)


def test_density_and_coverage_are_those_of_the_package_prdc(sides: Sides) -> None:
    told = TOLD["dgm-eval"]
    assert sides.score.density == pytest.approx(told["all_density"], rel=1e-12)
    assert sides.score.coverage == told["all_coverage"]


def test_vendi_is_that_of_its_authors_by_features_and_by_images() -> None:
    told = TOLD["dgm-eval"]
    many, few = FeatureRows.of_array(X), FeatureRows.of_array(X[:5])
    assert vendi_score(many, [slice(0, 1100)]).value == pytest.approx(told["vendi_dual"], rel=1e-10)
    assert vendi_score(few, [slice(0, 5)]).value == pytest.approx(told["vendi_few"], rel=1e-10)


def test_adms_precision_and_recall_in_half_precision() -> None:
    x, y = (FeatureRows.of_array(ARRAYS[f"wide_{key}"].astype(np.float32)) for key in "xy")
    precision, recall = half_precision_recall(y, x)
    # TensorFlow on a CPU adds up in another order, which moves an image or two across a border.
    assert precision == pytest.approx(TOLD["adm"]["rows"][0], abs=2.5 / len(x))
    assert recall == pytest.approx(TOLD["adm"]["rows"][1], abs=2.5 / len(y))


def test_halves_that_overflow_are_singles_as_in_adm() -> None:
    x, y = (100.0 * ARRAYS[f"wide_{key}"].astype(np.float32) for key in "xy")
    assert float((x * x).sum(axis=1).max()) > 65_504.0
    found = half_precision_recall(FeatureRows.of_array(y), FeatureRows.of_array(x))
    scaled = half_precision_recall(FeatureRows.of_array(y / 100), FeatureRows.of_array(x / 100))
    assert found == pytest.approx(scaled, abs=0.03)  # what half precision moves


def test_cmmd_of_given_embeddings() -> None:
    # jax has float32: means of 1 to its eps, 1.2e-7, three of them, times 1000; measured 6e-5.
    assert cmmd(unit(X), unit(Y)) == pytest.approx(TOLD["cmmd"], abs=4e-4)


def test_cmmds_crop_and_resize() -> None:
    made = resized(ARRAYS["a"][:1], 40, "crop")[0].permute(1, 2, 0)
    assert made.equal(torch.from_numpy(ARRAYS["cmmd_resized"]).float())


@pytest.mark.parametrize("registers", [0, 4])
def test_dinov2_is_its_authors_as_dgm_eval_and_edm2_run_it(registers: int, tmp_path: Path) -> None:
    name = f"dinov2_{registers}"
    state = {
        key.removeprefix(f"{name}/"): torch.from_numpy(value).float()
        for key, value in ARRAYS.items()
        if key.startswith(f"{name}/")
    }
    folder = save_dinov2_of_its_authors(state, tmp_path)
    expected = {"pillow": ARRAYS[f"{name}_dgm"]}
    if not registers:
        expected["bicubic"] = ARRAYS["edm2_features"]
    for resize, rows in expected.items():
        extractor = Dinov2Features(str(folder), resize, "dinov2-vit-l-14", offset=0.1)
        largest = np.abs(rows).max()
        np.testing.assert_allclose(extractor(ARRAYS["a"]), rows, atol=SAME_NETWORK * largest)
    usual = Dinov2Features(str(folder), "pillow", "dinov2-vit-b-14")(ARRAYS["a"])
    moved = np.abs(usual - expected["pillow"]).max() / np.abs(usual).max()
    # transformers resizes the positions to another grid; with registers both do the same.
    assert moved < SAME_NETWORK if registers else moved > 1e-4


def test_edm2s_distance_and_its_pickle_of_statistics(tmp_path: Path) -> None:
    statistics = statistics_for(GOLDEN / "edm2_stats.pkl", "dinov2-vit-l-14")
    assert statistics is not None
    assert statistics.count == len(ARRAYS["b"])
    with pytest.raises(ValueError, match="holds statistics of fd_dinov2; of inception-v3 it would"):
        statistics_for(GOLDEN / "edm2_stats.pkl", "")
    generated = FeatureSet("a", [ARRAYS["edm2_features"]])
    found = score_pair(generated, FeatureSet("b", given=statistics)).score
    # 12 images and 10 of 16 features: the peer takes the root of a product that is singular.
    assert found.fid == pytest.approx(TOLD["edm2"]["fd_dinov2"], rel=1e-5)
    assert (found.n_images, found.n_reference, found.kid) == (12, 10, None)


def test_resizes_by_torch_are_what_they_are_on_a_cpu_and_pillows_bytes_are_never_torchs() -> None:
    """Features of a card with all of them: `tests/core/features/test_on_cards.py`."""
    images = np.random.default_rng(0).integers(0, 256, (3, 50, 61, 3), dtype=np.uint8)
    for how, rule in RULES.items():
        if rule.quantisation == ROUNDED:
            with pytest.raises(ValueError, match=f"resize {how} is Pillow's alone"):
                resized_by_torch(torch.from_numpy(images), 24, how)
            continue
        there = resized_by_torch(torch.from_numpy(images), 24, how)
        assert (resized(images, 24, how) - there).abs().max() <= 1e-3, how


def test_an_unknown_peer_is_refused_with_the_known_ones() -> None:
    assert set(PEERS) == {
        "adm", "edm2", "dgm-eval", "torch-fidelity", "clean-fid", "pytorch-fid",
    }  # fmt: skip
    with pytest.raises(ValueError, match="did you mean edm2"):
        peer_named("edm")
