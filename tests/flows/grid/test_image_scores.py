"""Scores of images one by one in a grid: the numbers are those of its exported images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPTokenizer
from typer.testing import CliRunner

from flows.cli.app import app
from tests.core.foreign_files import text_pipeline
from tests.core.image_scores import tiny
from tests.core.image_scores.folders import aesthetic_folder, clip_folder
from tests.flows.grids import GridRun

RunGrid = Callable[..., GridRun]
TEXTS = ["a cat", "a dog", "a sea", "two red suns", "blue", "a house"]


def captioned(folder: Path) -> Path:
    place = folder / "train"
    place.mkdir(parents=True)
    draw = np.random.default_rng(0)
    lines = []
    for i, text in enumerate(TEXTS):
        Image.fromarray(draw.integers(0, 255, (16, 16, 3), np.uint8)).save(place / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": text}))
    (place / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def clip_scores(folder: Path, images: list[Image.Image], prompts: list[str]) -> list[float]:
    """CLIPScore by its formula: 2.5 max(cos, 0), pictures by Pillow alone."""
    from ddim_core.image_scores.networks.clip import open_clip

    network = open_clip(folder, "clip-score").network
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    found = []
    for image, prompt in zip(images, prompts, strict=True):
        big = image.resize((tiny.SIZE, tiny.SIZE), Image.Resampling.BICUBIC)
        pixels = (np.asarray(big) / 255.0 - mean) / std
        seen = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None]
        tokens = tokenizer(
            f"A photo depicts {prompt}", truncation=True, max_length=tiny.LENGTH,
            return_tensors="pt",
        ).input_ids  # fmt: skip
        with torch.no_grad():
            a = network.get_image_features(pixel_values=seen).pooler_output
            b = network.get_text_features(input_ids=tokens).pooler_output
        found.append(2.5 * max(float(torch.cosine_similarity(a, b)), 0.0))
    return found


def test_a_grid_is_judged_image_by_image_and_a_further_score_draws_nothing(
    run_grid: RunGrid, tmp_path: Path
) -> None:
    clip, aesthetic = clip_folder(tmp_path / "clip"), aesthetic_folder(tmp_path / "aesthetic")
    asked: dict[str, Any] = {
        "checkpoint": str(text_pipeline(tmp_path / "sd")),
        "dataset": str(captioned(tmp_path / "set")), "etas": [0.0, 1.0], "seed": 77,
        "shard_size": 7,
    }  # fmt: skip
    by_clip = [f"clip-score={clip}"]
    plain = run_grid(**asked, n_images=14)
    run = run_grid(**asked, n_images=14, image_scores=by_clip)
    assert run.state == "Completed", run.message
    assert run.result is not None
    assert plain.result is not None
    assert run.result.images_drawn == 0
    assert set(run.result.cells).isdisjoint(plain.result.cells)
    fids = [{row["eta"]: row["fid"] for row in each.rows} for each in (plain, run)]
    assert fids[0] == fids[1]
    # What judges is part of what a row says of its code.
    codes = [{row["code_digest"] for row in each.rows} for each in (plain, run)]
    assert codes[0].isdisjoint(codes[1])
    assert {row["clip_score"] for row in plain.rows} == {None}

    for row in run.rows:
        out = tmp_path / f"png-{row['eta']}"
        told = CliRunner().invoke(app, ["export", row["cell_digest"][:12], str(out)])
        assert told.exit_code == 0, told.output
        pictures = [Image.open(path) for path in sorted(out.iterdir())]
        expected = np.array(clip_scores(clip, pictures, [TEXTS[k % 6] for k in range(14)]))
        # Two implementations in float32 on values about 1.
        assert row["clip_score"] == pytest.approx(expected.mean(), abs=2e-6)
        assert row["clip_score_low"] < row["clip_score"] < row["clip_score_high"]
        # Six prompts have several images each, and each is a group.
        without = [expected[np.arange(14) % 6 != prompt].mean() for prompt in range(6)]
        assert row["clip_score_leave_one_out"] == pytest.approx(without, abs=2e-6)
        assert row["image_score_group_sizes"] == [3, 3, 2, 2, 2, 2]
        assert (row["image_score_prompts"], row["aesthetic"]) == (6, None)
        assert list(json.loads(row["image_scores"])) == ["clip_score"]

    scores = [*by_clip, f"aesthetic={aesthetic}"]
    more = run_grid(**asked, n_images=21, image_scores=scores)
    assert more.state == "Completed", more.message
    assert more.result is not None
    assert more.result.images_drawn == 2 * 7
    assert [row["n_images"] for row in more.rows] == [21, 21]
    assert None not in {row["aesthetic"] for row in more.rows}
    page = Path(more.result.report).read_text()
    assert "Scores of images one by one" in page
    assert "To tell" in page
    assert "image by image, with as many more prompts, clip_score about" in page
    table = CliRunner().invoke(app, ["table"], env={"COLUMNS": "300"}).output
    assert "aesthetic" in table
    assert f"{more.rows[0]['clip_score']:.4g}" in table


def test_a_score_that_needs_prompts_is_refused_before_anything_is_drawn(
    toy: str, tmp_path: Path
) -> None:
    from flows.fid_grid import fid_grid

    clip = f"clip-score={clip_folder(tmp_path / 'clip')}"
    with pytest.raises(ValueError, match=r"'clip-score', .* the toy model has no prompts as text"):
        fid_grid(image_scores=[clip], n_images=4)
    with pytest.raises(ValueError, match=r"'clip-score', .* toy has no prompts as text"):
        fid_grid(checkpoint=toy, image_scores=[clip], features="pixels", n_images=4)
    told = CliRunner().invoke(app, ["grid", "--image-scores", "aesthetics"])
    assert told.exit_code == 2
    assert "did you mean aesthetic?" in told.output
