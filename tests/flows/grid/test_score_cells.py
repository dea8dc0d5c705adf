"""Cells of a grid outside it: scored by their digest, exported, and read by other programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from flows.cli.app import app
from tasks.storage import places
from tests.flows.grids import GridRun

pytestmark = pytest.mark.timeout(180)


def ddim(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def pixel_distance(a: str, b: str) -> float:
    done = ddim("score", a, b, "--features", "pixels", "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["fid"]


@pytest.mark.usefixtures("quick_classifier")
def test_a_cell_is_scored_exported_and_read_elsewhere(
    run_grid: Callable[..., GridRun], tmp_path: Path
) -> None:
    grid = run_grid(seed=901, features="classifier", matrix_images=20)
    cell, other = grid.rows
    digest = cell["cell_digest"]

    # By its own extractor against its own reference: the table's numbers, bit for bit.
    done = ddim("score", digest[:12], "digits", "--split", "train", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    for name in ("fid", "fid_low", "fid_high", "kid", "inception_score"):
        assert found[name] == cell[name], name
    recorded = json.loads(cell["protocol"])
    for name in ("extractor_digest", "statistics_digest", "sampler", "seed", "n_images",
                 "estimator", "extractor_weights_digest"):  # fmt: skip
        told = found["protocol"][name]
        wanted = recorded[name]
        assert told == ({k: wanted[k] for k in told} if name == "sampler" else wanted), name
    assert recorded["extractor_digest"] == cell["extractor_digest"]

    # Exported bit for bit, in two forms.
    assert ddim("export", digest[:12], str(tmp_path / "png")).exit_code == 0
    parquet = tmp_path / "cell.parquet"
    assert ddim("export", digest, str(parquet)).exit_code == 0
    from datasets import load_dataset
    from pytorch_fid.fid_score import ImagePathDataset

    files = sorted((tmp_path / "png").glob("*.png"))
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    opened = load_dataset("parquet", data_files=str(parquet), cache_dir=str(tmp_path))["train"]
    assert np.array_equal(np.stack([np.asarray(i) for i in opened["image"]]), pixels)
    theirs = np.stack([np.asarray(image) for image in ImagePathDataset(files)])
    assert np.array_equal(theirs[..., 0], pixels)
    assert len(pixels) == cell["n_images"]

    # The same images from all three places are one set.
    png = str(tmp_path / "png")
    assert pixel_distance(digest, png) == pytest.approx(0.0, abs=1e-9)
    between = pixel_distance(digest, other["cell_digest"])
    assert pixel_distance(str(parquet), other["cell_digest"]) == pytest.approx(between, rel=1e-9)
    assert not any("no seal" in note for note in found["notes"])
    place = Path(places.data_url("results", "cells", f"{digest}.parquet"))
    sealed = place.read_bytes()
    pq.write_table(pq.read_table(place), place)  # as another program would
    done = ddim("score", digest, png, "--features", "pixels", "--json")
    place.write_bytes(sealed)  # other files' tests count the rows without a seal
    assert any("carries no seal" in note for note in json.loads(done.stdout)["notes"])
    refused = ddim("export", digest, png)
    assert refused.exit_code == 2
    assert "holds something" in refused.stderr

    # The report shows how much the protocol moves the number.
    page = Path(grid.result.report).read_text()
    assert "Protocol matrix" in page
    no_resize = page.count('<td class="text">none</td>')
    assert no_resize == 2  # classifier and pixels
