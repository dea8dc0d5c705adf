"""Grids on other people's checkpoints: a text model on a captioned set, settings overridden."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.core.foreign_files import official_like, official_names, text_pipeline
from tests.flows.grids import GridRun
from tests.networks import save_clip

RunGrid = Callable[..., GridRun]


def captioned(folder: Path) -> Path:
    place = folder / "train"
    place.mkdir(parents=True)
    draw = np.random.default_rng(0)
    lines = []
    for i, text in enumerate(["a cat", "a dog", "a sea"]):
        Image.fromarray(draw.integers(0, 255, (16, 16, 3), np.uint8)).save(place / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": text}))
    (place / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_a_text_model_is_scored_against_a_captioned_set_over_guidance(
    run_grid: RunGrid, tmp_path: Path
) -> None:
    asked = {
        "checkpoint": str(text_pipeline(tmp_path / "sd")),
        "dataset": str(captioned(tmp_path / "set")),
        "etas": [0.0], "guidance": [1.0, 3.0], "n_images": 6, "shard_size": 3,
    }  # fmt: skip
    run = run_grid(**asked)
    assert run.state == "Completed", run.message
    assert {r["guidance_scale"]: r["nfe"] for r in run.rows} == {1.0: 2, 3.0: 4}
    assert {r["resolution"] for r in run.rows} == {16}
    assert len({r["prompts_digest"] for r in run.rows}) == 1
    again = run_grid(**asked)
    assert again.computed["sample-shard"] == again.computed["convert-checkpoint"] == 0
    (tmp_path / "prompts.txt").write_text("a cat\n")
    other = run_grid(**asked | {"prompts": str(tmp_path / "prompts.txt")})
    assert other.computed["sample-shard"] == 4
    assert {r["prompts_digest"] for r in other.rows}.isdisjoint(
        {r["prompts_digest"] for r in run.rows}
    )


def test_overrides_stand_in_rows_of_their_own(run_grid: RunGrid, tmp_path: Path) -> None:
    torch.save([official_names(official_like()), {}, 0, 7], tmp_path / "ckpt.pth")
    asked = {
        "checkpoint": str(tmp_path / "ckpt.pth"), "dataset": str(captioned(tmp_path / "set")),
        "etas": [0.0], "n_images": 4, "shard_size": 4,
    }  # fmt: skip
    own = run_grid(**asked).rows
    other = run_grid(**asked, noise_schedule="cosine", prediction_type="sample").rows
    told = ("checkpoint", "training_step", "noise_schedule", "overrides")
    assert [[r[name] for name in told] for r in own] == [["ckpt", 7, "checkpoint", ""]]
    (row,) = other
    assert (row["noise_schedule"], row["prediction_type"]) == ("cosine", "sample")
    assert "noise schedule cosine" in row["overrides"]
    assert "not the checkpoint's epsilon" in row["overrides"]
    assert row["cell_digest"] != own[0]["cell_digest"]
    assert row["checkpoint_digest"] == own[0]["checkpoint_digest"]


def test_statistics_are_a_reference_as_far_as_moments_go(run_grid: RunGrid, tmp_path: Path) -> None:
    from ddim_core.features.clip_dino import ClipFeatures
    from ddim_core.images.load import load_images

    torch.save([official_names(official_like()), {}, 0, 7], tmp_path / "ckpt.pth")
    clip = save_clip(tmp_path / "clip")
    asked = {
        "checkpoint": str(tmp_path / "ckpt.pth"), "dataset": str(captioned(tmp_path / "set")),
        "etas": [0.0], "n_images": 4, "shard_size": 4, "features": "clip-vit-b-32",
        "feature_weights": str(clip),
    }  # fmt: skip
    (by_images,) = run_grid(**asked).rows
    channels = 3
    real = load_images(str(tmp_path / "set"), "train", by_images["resolution"], channels).images
    rows = ClipFeatures(str(clip))(real)
    moments = {"mu": rows.mean(axis=0), "sigma": np.cov(rows, rowvar=False)}
    np.savez(tmp_path / "stats.npz", **moments)
    run = run_grid(**asked | {"dataset": str(tmp_path / "stats.npz")})
    assert run.state == "Completed", run.message
    (row,) = run.rows
    assert row["fid"] == pytest.approx(by_images["fid"], rel=1e-6)  # NumPy's mean is float32
    assert row["fid_low"] is not None
    assert by_images["kid"] is not None
    unknown = ("n_reference", "kid", "kid_std", "precision", "recall", "density", "coverage")
    assert [row[name] for name in unknown] == [None] * len(unknown)
    assert json.loads(row["protocol"])["reference_digest"] is None


def test_statistics_without_a_checkpoint_or_their_features_are_refused(tmp_path: Path) -> None:
    from flows.requests.flat import build
    from flows.requests.grid import GridRequest

    place = str(tmp_path / "stats.npz")
    np.savez(place, mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(ValueError, match="holds statistics and no images to train on"):
        build(GridRequest, {"dataset": place, "features": "inception-v3"})
    with pytest.raises(ValueError, match="name the pretrained features that it is of"):
        build(GridRequest, {"dataset": place, "checkpoint": "ann/model"})


def test_sigma_hat_clips_pixels_and_never_latents() -> None:
    from flows.requests.flat import build, values
    from flows.requests.grid import GridRequest
    from flows.requests.samplers.cells import Sampled

    asked = {"checkpoint": "ann/model", "steps": [2], "etas": [], "sigma_hat": True}
    request = build(GridRequest, asked)
    (pixels,), (latents,) = (
        request.cells(Sampled(1000, is_latent=is_latent)) for is_latent in (False, True)
    )
    assert (pixels.sampler.clip, latents.sampler.clip) == (True, False)
    with pytest.raises(ValueError, match="clipping is for pixels"):
        build(GridRequest, values(request) | {"clip": True}).cells(Sampled(1000, is_latent=True))
